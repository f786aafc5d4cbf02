"""vLLM's dummy steps (profile run, warm-up) on chips whose own random numbers are in doubt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ascend_facts.chips import ChipSpec


class _WithoutDeviceRandom(TorchFunctionMode):
    """torch.rand_like gives zeros.

    Reason: vLLM gives the output matrix random rows drawn on the device, which Ascend 310P is reported to hang on; that
    they are numbers is all that matters.
    Reference: vllm/v1/worker/gpu_model_runner.py _dummy_sampler_run.
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        return (torch.zeros_like if function is torch.rand_like else function)(*args, **(kwargs or {}))


def dummy_run_context(chip: ChipSpec) -> AbstractContextManager[Any]:
    """What vLLM's dummy run of the sampler is to run in on this chip."""
    return nullcontext() if chip.forms.device_random else _WithoutDeviceRandom()
