"""A stand-in for transformers' torchvision image processor of Qwen2-VL, where there is no torchvision.

Reason: vLLM's modules of Qwen3.5 and Qwen3-VL, text models included, import one function (smart_resize) from it. The
same function is in transformers' module of PIL processors. PyPI's torchvision is built for CUDA's torch and fails
beside torch+cpu (operator torchvision::nms does not exist); the CPU build is on PyTorch's own index only, so set-up
installs none.
Upstream: vllm/model_executor/models/qwen3_vl.py and qwen2_vl.py, import of smart_resize.
Held by: tests/upstream/test_patches.py, tests/models/test_qwen3_5_served.py.
Exit: when vLLM imports the function where it is used, or from the PIL module.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

REPLACED = "transformers.models.qwen2_vl.image_processing_qwen2_vl"
STAND_IN = "transformers.models.qwen2_vl.image_processing_pil_qwen2_vl"


class _StandIn(ModuleType):
    """Has what the PIL module has, which is imported when something is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by those who look through sys.modules
            raise AttributeError(name)
        return getattr(importlib.import_module(STAND_IN), name)


def apply() -> None:
    if REPLACED not in sys.modules and importlib.util.find_spec("torchvision") is None:
        sys.modules[REPLACED] = _StandIn(REPLACED, __doc__)
