"""The judge: transformers on the CPU, teacher-forced. `python reference.py JOB.json ANSWER.npz`.

Job: {"model": directory, "sequences": [token ids], "last": count, "dtype": of its arithmetic}. Answer: for each
sequence, the logits from which its last `count` tokens would be chosen, [count, vocabulary] fp32; 0 is all of them but
the first.
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
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, job["dtype"])).eval()
    with torch.inference_mode():
        keep = job["last"] + 1 if job["last"] else 0
        logits = [
            model(torch.tensor([tokens]), logits_to_keep=keep).logits[0, :-1].float().numpy()
            for tokens in job["sequences"]
        ]
    np.savez(sys.argv[2], *logits)


if __name__ == "__main__":
    main()
