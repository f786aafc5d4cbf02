"""What the plugin launches, as recorded on emulated chips, has rows in src/ascend_facts/operators.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from ascend_facts import operators
from conformance.forms import record

pytestmark = pytest.mark.slow  # engines

# Dense and tensor-parallel, a hybrid, experts, int8: between them they cross most code paths. Other architectures are
# looked at by `python -m conformance.forms`.
RUNS = (
    ("qwen3", ("graph", "tp2")),
    ("qwen3_5", ("graph",)),
    ("qwen3-moe", ("graph",)),
    ("qwen3-w8a8-dynamic", ("graph",)),
)


@pytest.mark.parametrize("chip", ["310P3", "910B3"])
@pytest.mark.parametrize(("name", "starts"), RUNS)
def test_every_launched_form_has_a_row(chip: str, name: str, starts: tuple[str, ...], tmp_path: Path) -> None:
    cache = Path.home() / ".cache/ascend-plugin/conformance"
    found = record([name], [chip], cache, print, starts)[chip]
    assert len(found) > 30
    assert operators.without_row(found, chip) == []
