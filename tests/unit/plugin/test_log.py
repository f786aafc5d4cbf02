"""What the plugin says must be seen: vLLM's logging shows its own names and their children."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import torch

from ascend_plugin import log
from ascend_plugin.log import plugin_logger

SOURCES = Path(__file__).parents[3] / "src" / "ascend_plugin"


def test_notices_go_where_vllm_s_go() -> None:
    plugin_logger("ascend_plugin")  # the package's own, which stands between the two once it has been asked for
    logger: logging.Logger | None = plugin_logger("ascend_plugin.worker")
    while logger is not None and logger is not logging.getLogger("vllm"):
        assert logger.propagate and not logger.handlers
        logger = logger.parent
    assert logger is not None


def test_no_module_makes_a_logger_of_its_own() -> None:
    making = re.compile(r"init_logger\(|logger = (?!plugin_logger\(__name__\))")
    found = {path.name for path in SOURCES.rglob("*.py") if making.search(path.read_text())}
    assert found == {"log.py"}


def test_conversions_that_vllm_announced_are_not_said_of_every_weight() -> None:
    text = "Attempted to load weight %s with dtype %s into parameter with dtype %s"

    def shown(*arguments: object, message: str = text) -> bool:
        return log.is_no_announced_conversion(
            logging.LogRecord("vllm", logging.WARNING, "utils.py", 1, message, arguments, None)
        )

    assert not shown("layers.0.mlp.up_proj.weight", torch.bfloat16, torch.float16)
    assert not shown("layers.0.mlp.up_proj.deq_scale", torch.int64, torch.float32)
    assert shown("layers.0.mlp.up_proj.weight", torch.float32, torch.float16)
    assert shown("layers.0.mlp.up_proj.weight", torch.bfloat16, torch.int8)
    assert shown("layers.0", message="Something else of %s")
