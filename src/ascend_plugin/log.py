"""The plugin's loggers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm.logger import init_logger

if TYPE_CHECKING:
    from vllm.logger import _VllmLogger


def plugin_logger(module: str) -> _VllmLogger:
    """A module's logger, named as a child of vLLM's: vLLM's logging shows no other's lines below a warning."""
    return init_logger(f"vllm.{module}")
