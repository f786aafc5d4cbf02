"""What the tests of this folder run in the process that has the chip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

TOLERANCES = {torch.float16: (2e-3, 2e-3), torch.bfloat16: (1.6e-2, 1.6e-2), torch.float32: (1e-4, 1e-4)}


def setup(seed: int = 0) -> Any:
    """torch_npu with aclnn operators on, and seeded random numbers."""
    import torch_npu

    torch.npu.set_compile_mode(jit_compile=False)
    torch.manual_seed(seed)
    return torch_npu


def assert_close(actual: torch.Tensor, expected: torch.Tensor, label: str = "", scale: float = 1.0) -> None:
    """The actual result within its own type's rounding of a float32 reference; `scale` widens that for long sums."""
    relative, absolute = TOLERANCES[actual.dtype]
    torch.testing.assert_close(
        actual.cpu().float(),
        expected.float(),
        rtol=relative * scale,
        atol=absolute * scale,
        msg=lambda text: f"{label}: {text}",
    )


def refusal(call: Callable[[], Any]) -> str:
    """The message with which an operator refuses its arguments; empty if it does not."""
    try:
        result = call()
        torch.npu.synchronize()
    except RuntimeError as error:
        return str(error)
    return f"not refused: {result}"
