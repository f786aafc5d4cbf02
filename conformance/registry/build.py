"""Make one architecture's checkpoint: a process of its own (`python -m conformance.registry.build JOB.json`).

The job: name, directory, seed, output (.json), only_describe (no checkpoint is made). The output has the architecture
(what `Architecture` takes), or, as `unbuildable`, why nothing here can make such a model.
"""

from __future__ import annotations

# ruff: noqa: E402 - what hides the NPU has to come before the imports that look for it
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
sys.modules["torch_npu"] = None  # type: ignore[assignment] # transformers imports it wherever it is installed

import transformers

from conformance import cpu_job
from conformance.architectures import FACTS, Architecture, Task
from conformance.checkpoint import write_checkpoint
from conformance.registry.names import data, registered, unbuildable
from conformance.registry.scale import scaled

GAINS = (1.0, 3.0, 0.4, 8.0)  # tried in this order until the logits say something


class Unbuildable(Exception):
    """Nothing here has this architecture's mathematics; the message says what is missing."""


def describe(name: str) -> Architecture:
    """The architecture as data. Raises Unbuildable."""
    kind, table, _ = registered()[name]
    entry = data().get(name, {})
    if (why := unbuildable(name)) is not None:
        raise Unbuildable(why)
    model_class = entry.get("model_class", name)
    config_class = getattr(transformers, model_class).config_class
    if kinds := [kind for kind in ("vision_config", "audio_config", "vlm_config") if hasattr(config_class(), kind)]:
        # Scaled down from outside, what its parts default to would stay as large as it is published.
        raise Unbuildable(f"its {kinds[0]} needs a row of conformance/multimodal.toml")
    task: Task = "generate" if kind == "text generation" else entry.get("task", _task(table, name))
    return Architecture(
        name=name,
        group=kind,
        model_class=model_class,
        published=entry.get("published", ""),
        covers=entry.get("covers", ""),
        config={"model_type": config_class.model_type, **scaled(config_class, entry.get("config", {}))},
        task=task,
        engine_class=name if model_class != name else None,
        layout=entry.get("layout"),
        branch_gain=entry.get("branch_gain", 1.0),
    )


def _task(table: str, name: str) -> Task:
    if table == "_SEQUENCE_CLASSIFICATION_MODELS":
        return "classify"
    if table == "_TOKEN_CLASSIFICATION_MODELS":
        return "token_classify"
    if table == "_EMBEDDING_MODELS":
        return "embed"
    raise Unbuildable(f"the laboratory has no reference for what {name} answers")


def run(job: dict[str, Any]) -> dict[str, Any]:
    try:
        architecture = describe(job["name"])
    except Unbuildable as error:
        return {"unbuildable": str(error)}
    if job.get("only_describe"):
        return {"architecture": asdict(architecture)}
    complaint = None
    gains = GAINS if architecture.task == "generate" else GAINS[:1]
    for gain in gains:
        tried = replace(architecture, branch_gain=architecture.branch_gain * gain)
        folder = write_checkpoint(tried, job["directory"], job["seed"])
        complaint = json.loads((folder / FACTS).read_text()).get("complaint")
        if complaint is None:
            break
    return {"architecture": asdict(tried), "complaint": complaint}


def main() -> None:
    job = cpu_job.read()
    Path(job["output"]).write_text(json.dumps(run(job)))


if __name__ == "__main__":
    main()
