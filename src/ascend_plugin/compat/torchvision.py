"""torchvision beside torch's CPU build: its Python part works, and a text model runs without it.

Reason: transformers prepares pictures by torchvision.transforms, which is Python on torch. The package index has builds
for CUDA's torch only, whose compiled operators do not load beside torch+cpu; the import then fails in the fake forms
of those operators (operator torchvision::nms does not exist), which only a compiler reads. So these are left out.
Without any torchvision vLLM's modules of Qwen3.5 and Qwen3-VL, text models included, miss one function (smart_resize)
that is in transformers' module of PIL processors too.
Upstream: torchvision/__init__.py, import of _meta_registrations; vllm/model_executor/models/qwen3_vl.py and
qwen2_vl.py, import of smart_resize.
Held by: tests/upstream/test_patches.py, tests/models/test_qwen3_5_served.py, tests/models/test_multimodal_served.py.
Exit: when the package index has a build for torch's CPU build, or torchvision imports without its operators.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from ascend_plugin.preconditions import has_torchvision

FAKE_FORMS = "torchvision._meta_registrations"
REPLACED = "transformers.models.qwen2_vl.image_processing_qwen2_vl"
STAND_IN = "transformers.models.qwen2_vl.image_processing_pil_qwen2_vl"


class _StandIn(ModuleType):
    """Has what the PIL module has, which is imported when something is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by those who look through sys.modules
            raise AttributeError(name)
        return getattr(importlib.import_module(STAND_IN), name)


def apply() -> None:
    if has_torchvision():
        if "torchvision" not in sys.modules:
            sys.modules.setdefault(FAKE_FORMS, ModuleType(FAKE_FORMS, "Left out by ascend_plugin.compat.torchvision."))
    elif REPLACED not in sys.modules:
        sys.modules[REPLACED] = _StandIn(REPLACED, __doc__)
