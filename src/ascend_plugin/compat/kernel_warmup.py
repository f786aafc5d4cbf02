"""The worker's kernel warm-up does nothing.

Reason: it imports CUDA kernels and, through one of them, torchvision, and its Triton warm-ups of hybrid models do not
ask enable_jit_warmup; nothing here is compiled at run time.
Upstream: vllm/model_executor/warmup/kernel_warmup.py, called by gpu_worker.py compile_or_warm_up_model.
Held by: tests/upstream/test_patches.py, tests/tiny.
Exit: when kernel_warmup asks the platform first.
"""

from __future__ import annotations

from typing import Any


def apply() -> None:
    from vllm.v1.worker import gpu_worker

    module: Any = gpu_worker  # mypy knows the names only that it exports
    module.kernel_warmup = warm_up_nothing


def warm_up_nothing(worker: Any, *, process_local_only: bool = False) -> None:
    """Has kernel_warmup's arguments."""
