"""A pytest plugin that prepares the test process as vLLM prepares a worker before it runs a model."""

from __future__ import annotations

import pytest


def pytest_configure() -> None:
    from vllm.platforms import current_platform

    from ascend_plugin import compat

    current_platform.register_triton_kernel_overrides()
    compat.prepare_worker_process()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """No test of allowed.yaml joins a process group: none is torn down after each, which takes a second."""
    for item in items:
        item.add_marker("skip_global_cleanup")
