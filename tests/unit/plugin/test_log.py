"""What the plugin says must be seen: vLLM's logging shows its own names and their children."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from ascend_plugin.log import plugin_logger

SOURCES = Path(__file__).parents[3] / "src" / "ascend_plugin"


def test_notices_go_where_vllm_s_go() -> None:
    logger = plugin_logger("ascend_plugin.worker")
    assert logger.parent is logging.getLogger("vllm") and logger.propagate and not logger.handlers


def test_no_module_makes_a_logger_of_its_own() -> None:
    making = re.compile(r"init_logger\(|getLogger\(")
    found = {path.name for path in SOURCES.rglob("*.py") if making.search(path.read_text())}
    assert found == {"log.py"}
