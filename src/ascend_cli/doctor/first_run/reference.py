"""The model on the CPU in float32: `python -m ascend_cli.doctor.first_run.reference JOB ANSWERS`, JSON files both.

Job: {"model", "answers": {number: {prompt, tokens}}}. Answers: {number: positions}, the log-probabilities of the
likeliest tokens and the chosen one before each new token, given those before it (teacher forcing).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

LIKELIEST = 20


def main() -> None:
    # transformers imports them wherever they are installed: the one opens chips, the other may not fit this torch.
    sys.modules["torch_npu"] = sys.modules["torchvision"] = None  # type: ignore[assignment]
    import torch
    from transformers import AutoModelForCausalLM

    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32).eval()
    found = {}
    with torch.inference_mode():
        for number, given in job["answers"].items():
            tokens = given["prompt"] + given["tokens"]
            logits = model(torch.tensor([tokens[:-1]])).logits[0, len(given["prompt"]) - 1 :]
            likely = logits.log_softmax(-1)
            positions = []
            for row, token in zip(likely, given["tokens"], strict=True):
                values, places = row.topk(min(LIKELIEST, row.numel()))
                positions.append({str(token): float(row[token])})
                positions[-1].update({str(int(p)): float(v) for p, v in zip(places, values, strict=True)})
            found[number] = positions
    Path(sys.argv[2]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
