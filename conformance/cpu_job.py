"""A job of a process that runs transformers on the CPU, read from the file named first."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import transformers


def read() -> dict[str, Any]:
    """The job, with transformers silenced and torch held to the threads that the environment allows."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    return job
