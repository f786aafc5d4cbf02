"""The `vllm` command of this machine."""

from __future__ import annotations

from ascend_cli.errors import UsageError
from ascend_cli.hardware.host import beside_python

INSTALL = "vLLM is not installed here: `make setup`, or run this inside the container that serves"


def vllm_command() -> str:
    """The `vllm` beside this Python, else the one on the search path. Raises UsageError if there is none."""
    found = beside_python("vllm")
    if found is None:
        raise UsageError(INSTALL)
    return str(found)
