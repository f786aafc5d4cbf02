"""Drafts from the text before, checked several at a time: `python examples/speculative.py [MODEL]`.

The answer is the one without drafts; what changes is in how many steps it comes. Drafts pay where an answer repeats
its prompt: rewriting code, quoting documents, structured data.
"""

import sys
from pathlib import Path

from vllm import LLM, SamplingParams

from ascend_cli.registry.smollm2 import build_smollm2

PROMPT = "one, two, three, four, one, two, three, four, one, two, three, four, one, two,"
NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3, "prompt_lookup_min": 2}


def main() -> None:
    model = (
        sys.argv[1] if len(sys.argv) > 1 else str(build_smollm2(Path.home() / ".cache/ascend-plugin/models/smollm2"))
    )
    llm = LLM(
        model,
        max_model_len=2048,
        kv_cache_memory_bytes=256 << 20,  # for emulated chips; leave it out on a card
        speculative_config=NGRAM,
        disable_log_stats=False,  # so that the drafts are counted
    )
    sampling = SamplingParams(temperature=0, max_tokens=48)
    answer = llm.generate(PROMPT, sampling, use_tqdm=False)[0].outputs[0]
    counts = {metric.name: metric.value for metric in llm.get_metrics() if hasattr(metric, "value")}
    print(answer.text.strip())
    drafted = counts["vllm:spec_decode_num_draft_tokens"]
    accepted = counts["vllm:spec_decode_num_accepted_tokens"]
    print(f"{len(answer.token_ids)} tokens; {drafted:.0f} drafted, {accepted:.0f} of them accepted")


if __name__ == "__main__":
    main()
