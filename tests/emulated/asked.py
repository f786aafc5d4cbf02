"""What vllm.LLM offers beside plain generation, asked of one engine: `python asked.py MODEL [embeds]` prints JSON.

With "embeds" prompts as embeddings too; beams, a logits processor of the user's, a cache that is reset.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
ONLY = 777  # the token that OneToken leaves
PROMPT = [504, 3575, 282, 4649, 314]
LONG = [(37 * index + 11) % 40000 + 100 for index in range(150)]


class OneToken(LogitsProcessor):
    """Leaves one token to the requests whose extra_args ask for it."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self.rows: set[int] = set()

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        if batch_update is None:
            return
        for row, params, _, _ in batch_update.added:
            (self.rows.add if (params.extra_args or {}).get("only") else self.rows.discard)(row)
        for row in batch_update.removed:
            self.rows.discard(row)
        for origin, target, direction in batch_update.moved:
            here, there = origin in self.rows, target in self.rows
            (self.rows.add if here else self.rows.discard)(target)
            if direction is MoveDirectionality.SWAP:
                (self.rows.add if there else self.rows.discard)(origin)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        for row in self.rows:
            kept = logits[row, ONLY].clone()
            logits[row] = -60000.0
            logits[row, ONLY] = kept
        return logits


def table(worker: Any) -> Any:
    """The rows of the embedding table that PROMPT looks up."""
    weight = worker.model_runner.get_model().model.embed_tokens.weight
    return weight[torch.tensor(PROMPT, device=weight.device)].cpu()


def main() -> None:
    from vllm import LLM, SamplingParams, TokensPrompt
    from vllm.sampling_params import BeamSearchParams

    embeds = "embeds" in sys.argv[2:]
    engine = LLM(
        sys.argv[1],
        dtype="float16",
        max_model_len=512,
        max_num_batched_tokens=256,
        max_num_seqs=4,
        gpu_memory_utilization=0.05,
        num_gpu_blocks_override=32,
        enable_prompt_embeds=embeds,
        logits_processors=[OneToken],
    )
    greedy = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    only = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, extra_args={"only": True})

    def ask(*prompts: Any, params: Any = greedy) -> list[Any]:
        return engine.generate(list(prompts), params, use_tqdm=False)

    def tokens(output: Any) -> list[int]:
        return list(output.outputs[0].token_ids)

    by_ids = TokensPrompt(prompt_token_ids=PROMPT)
    plain, forced = (tokens(each) for each in ask(by_ids, by_ids, params=[greedy, only]))
    embedded = tokens(ask({"prompt_embeds": engine.collective_rpc(table)[0]})[0]) if embeds else None
    beams = engine.beam_search([by_ids], BeamSearchParams(beam_width=2, max_tokens=4, ignore_eos=True))[0].sequences
    long = TokensPrompt(prompt_token_ids=LONG)
    cached = [ask(long)[0].num_cached_tokens for _ in range(2)]
    engine.reset_prefix_cache()
    answered = {
        "prompt": PROMPT,
        "only": ONLY,
        "plain": plain,
        "forced": forced,
        "embedded": embedded,
        "beams": [[list(beam.tokens)[len(PROMPT) :], beam.cum_logprob] for beam in beams],
        "cached": [*cached, ask(long)[0].num_cached_tokens],
    }
    print("ANSWERED " + json.dumps(answered), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
