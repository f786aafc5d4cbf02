"""The judge: transformers in fp32 on the CPU, teacher-forced. `python reference.py JOB.json ANSWER.json`.

Job: {"model": directory, "sequences": [token ids]}. Answer: for each sequence and position, the log-probability of the
token that follows, and by how much the likeliest token's exceeds it.
"""

# ruff: noqa: E402 - what hides the NPU has to come before the imports that look for it
import json
import os
import sys
from pathlib import Path

os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
sys.modules["torch_npu"] = None  # type: ignore[assignment] # transformers imports it wherever it is installed

import torch
from transformers import AutoModelForCausalLM


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32).eval()
    answers = []
    with torch.inference_mode():
        for tokens in job["sequences"]:
            logprobs = model(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)
            following = logprobs.gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]
            gap = logprobs.amax(-1) - following
            answers.append({"logprobs": following.tolist(), "gaps": gap.tolist()})
    Path(sys.argv[2]).write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
