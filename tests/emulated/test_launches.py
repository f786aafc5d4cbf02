"""What one decode step asks of a 310P3: launches, copies and waits. Counts only; time is the benchmarks' subject.

Both are differences: of two rounds that differ by STEPS decode steps, and of two models that differ by LAYERS layers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance.tiny import TinyShape, build_tiny_qwen3

pytestmark = pytest.mark.slow  # engines

STEPS, LAYERS = 8, 2
PROMPTS = [[(31 * request + 7 * position) % 400 + 5 for position in range(6)] for request in range(17)]


def rounds_of(requests: int) -> list[list[dict[str, Any]]]:
    """The same requests twice, the second time for STEPS more tokens."""
    return [
        [
            {"prompt": prompt, "sampling": {"temperature": 0, "max_tokens": tokens, "ignore_eos": True}}
            for prompt in PROMPTS[:requests]
        ]
        for tokens in (6, 6 + STEPS)
    ]


def per_step(rounds: list[dict[str, Any]], *path: str) -> float:
    """A counter of one decode step, from a pair of rounds."""

    def read(stats: Any) -> int:
        for name in path:
            stats = stats[name]
        return stats

    return (read(rounds[1]["stats"]) - read(rounds[0]["stats"])) / STEPS


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [
        build_tiny_qwen3(folder / f"{layers}-layers", TinyShape(num_hidden_layers=layers))
        for layers in (LAYERS, 2 * LAYERS)
    ]


def test_a_step_s_bytes_do_not_know_max_model_len(run_engines: Callable, models: list[Path]) -> None:
    """Tables of blocks are as wide as max_model_len; only rows that change are sent, when requests join."""
    rounds = rounds_of(1)[:1] + rounds_of(4)
    lengths = [{"rounds": rounds, "max_model_len": length} for length in (64, 512)]
    short, long = (engine["rounds"][1:] for engine in run_engines(models[0], [], lengths))
    bytes_of_short, bytes_of_long = (per_step(pair, "copies", "host_to_device", "bytes") for pair in (short, long))
    rows = 4 * (512 - 64) // 128 * 4  # the most that wider ones add to a pair's joins
    assert 0 < bytes_of_short <= bytes_of_long <= bytes_of_short + rows / STEPS


@pytest.mark.parametrize(("mode", "operations"), [("eager", "launches_total"), ("graph", "graph_launches_total")])
def test_a_decode_step(run_engines: Callable, models: list[Path], mode: str, operations: str) -> None:
    warm_up = rounds_of(1)[:1]  # masks and tables are uploaded once
    choices = [{"rounds": warm_up + rounds_of(1) + rounds_of(4), "enforce_eager": mode == "eager"}]
    shallow, deep = (run_engines(model, [], choices)[0]["rounds"] for model in models)
    # One request: QKV, two norms of heads, rotation, cache write, attention, output projection, two norms with their
    # residual, gate and up, SwiGLU, down. Several: values are columns of the fused projection, which the cache write
    # does not take, so they are copied; keys and queries are not, because their norms write them anew.
    for pair, most in ((slice(1, 3), 12), (slice(3, 5), 13)):
        of_layers = per_step(deep[pair], operations) - per_step(shallow[pair], operations)
        assert of_layers / LAYERS <= most
        for name in ("host_to_device", "device_to_host"):
            assert per_step(deep[pair], "copies", name, "count") == 1  # none of them in a layer
        for name in ("stream", "device", "blocking_copy"):
            assert per_step(deep[pair], "synchronizations", name) == 0
        # For the step's output; and, if the last step's inputs are not through yet, for those.
        assert per_step(deep[pair], "synchronizations", "event") <= 2
        assert per_step(deep[pair], "events", "waits") <= 1


@pytest.mark.parametrize("chip", ["310P3", "910B3"])
def test_no_step_copies_between_buffers_of_the_device(run_engines: Callable, models: list[Path], chip: str) -> None:
    """With batches that end inside a block of 32 bytes, where chips without a padded store spoil what follows."""
    rounds = [rounds_of(size)[0] for size in (9, 12, 15, 17)]
    choices = [{"rounds": rounds, "max_num_seqs": 32, "watch": True, "async_scheduling": now} for now in (True, False)]
    for engine in run_engines(models[0], [], choices, chip):
        assert engine["rounds"][0]["stats"]["graphs"]["replays"]
        assert engine["ragged_copies"] == []
