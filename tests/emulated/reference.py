"""The judge: transformers in fp32 on the CPU, teacher-forced. `python reference.py JOB.json ANSWER.npz`.

Job: {"model": directory, "sequences": [token ids]}. Answer: for each sequence, the logits that follow each of its
tokens but the last, [length - 1, vocabulary] fp32.
"""

# ruff: noqa: E402 - what hides the NPU has to come before the imports that look for it
import json
import os
import sys
from pathlib import Path

os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
sys.modules["torch_npu"] = None  # type: ignore[assignment] # transformers imports it wherever it is installed

import numpy as np
import torch
from transformers import AutoModelForCausalLM


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = [model(torch.tensor([tokens])).logits[0, :-1].numpy() for tokens in job["sequences"]]
    np.savez(sys.argv[2], *logits)


if __name__ == "__main__":
    main()
