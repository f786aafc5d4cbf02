"""One sentence in the place of a traceback, where a model's code calls a kernel that no Ascend chip has.

What is known not to run is refused before weights are read (ascend_facts.refused). This is for the rest: classes of
models that nobody has run here, plug-ins, layers behind an unusual option.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OPERATOR = re.compile(r"'_OpNamespace' '(_\w*)' object has no attribute '(\w+)'")
FOREIGN = ("triton", "flashinfer", "cutlass", "cuda", "deep_gemm", "flash_attn", "aiter", "fla", "tilelang")


class UnsupportedModel(ValueError):
    """The model's code needs what the platform does not have; the message has what it is and what to do."""


@contextmanager
def explained(architecture: str) -> Iterator[None]:
    """Raises UnsupportedModel in the place of an error that a missing kernel makes; others pass."""
    try:
        yield
    except Exception as error:
        kernel = missing_kernel(error)
        if kernel is None:
            raise
        raise UnsupportedModel(
            f"Use another model (`ascend models` lists those that were run): {architecture} calls {kernel}, which no "
            "Ascend chip has."
        ) from error


def missing_kernel(error: BaseException) -> str | None:
    """The kernel whose absence made this error; None for any other error."""
    if operator := OPERATOR.search(str(error)):
        return f"torch.ops.{operator[1]}.{operator[2]}"
    if isinstance(error, ImportError) and (error.name or "").split(".")[0] in FOREIGN:
        return f"{error.name}'s kernels"
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return None
    if "triton" in str(error) or _of_triton(frames[-1].filename):
        place: Any = next((frame for frame in reversed(frames) if not _of_triton(frame.filename)), frames[-1])
        return f"a Triton kernel ({Path(place.filename).name}, {place.name})"
    return None


def _of_triton(filename: str) -> bool:
    return bool({"triton", "triton_utils"} & set(Path(filename).parts))
