"""The plugin's loggers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vllm.logger import init_logger

if TYPE_CHECKING:
    from vllm.logger import _VllmLogger


def plugin_logger(module: str) -> _VllmLogger:
    """A module's logger, named as a child of vLLM's: vLLM's logging shows no other's lines below a warning."""
    return init_logger(f"vllm.{module}")


def hide_announced_conversions() -> None:
    """Say once that a bfloat16 checkpoint runs in float16, not for each of its weights. Can be repeated.

    vLLM warns of every converted weight, hundreds of lines on each chip, after it has said that it casts
    (vllm/model_executor/models/utils.py AutoWeightsLoader._load_param; config/model.py _get_and_verify_dtype).
    """
    logging.getLogger("vllm.model_executor.models.utils").addFilter(is_no_announced_conversion)


def is_no_announced_conversion(record: logging.LogRecord) -> bool:
    if not str(record.msg).startswith("Attempted to load weight %s with dtype %s"):
        return True
    name, *dtypes = map(str, record.args or ())
    read_as_bits = name.endswith(".deq_scale")  # ModelSlim's, by quantization.modelslim_linear
    return not read_as_bits and dtypes[:2] != ["torch.bfloat16", "torch.float16"]
