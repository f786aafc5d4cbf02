"""Models and servers of the battery: few, shared, and small."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.tiny import build_tiny_qwen3


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_qwen3(tmp_path_factory.mktemp("models") / "tiny")
