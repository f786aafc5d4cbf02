"""The bounds of the published tables are computed from whatever engines were run."""

from __future__ import annotations

from benchmarks._published_bounds import bound_lines
from benchmarks.published import found, wanted_rows


def test_bounds_of_an_engine() -> None:
    """Floor, bytes at the chip's share, step and token of a made-up engine that decodes at 12 ms."""
    load = {
        "concurrency": 1,
        "prompts": 20,
        "input_tokens": 256,
        "output_tokens": 128,
        "tpot_ms": 12.0,
        "ttft_ms": 20.0,
    }
    engine = {
        "model": "qwen3-0.6b", "ranks": 1, "mode": "graph", "online": [load], "offline": [],
        "steps": {"decode": {"product": 11.0}},
    }  # fmt: skip
    lines = bound_lines(wanted_rows(), lambda row, kind: found([engine], row, "graph", kind), [engine])
    assert any(line.startswith("| Qwen3-0.6B, 1 chip: TPOT / floor | at most 1.5 | 2.00 |") for line in lines)
    row = next(line for line in lines if line.startswith("| qwen3-0.6b | 1 |"))
    floor, at_share, step, token = (float(cell) for cell in row.split("|")[3:7])
    assert (step, token) == (11.0, 12.0)
    assert floor < at_share < step
