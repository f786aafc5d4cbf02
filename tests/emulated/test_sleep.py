"""Sleep mode and weights that change: the chip gets its memory back, and answers are those of the weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance.tiny import build_tiny_qwen3

from .assertions import LONG, PROMPTS, TIE, requests, tokens_of, worst_gap

CYCLES = 20
EVERY = [LONG, *PROMPTS]
QUESTIONS = requests(*EVERY)
CACHE_BYTES = 32 * 128 * 4 * 4 * 128 * 2 * 2  # blocks, tokens, layers, heads, head size, bytes, keys and values


SEGMENT_BYTES = (
    2 << 20
)  # of PyTorch's allocator: whether the last small one is free while asleep depends on what is in it


def call(name: str, /, **arguments: Any) -> dict[str, Any]:
    return {"call": name, "arguments": arguments}


SLEEP, WAKE = call("sleep", level=1), call("wake_up")


@pytest.fixture(scope="session")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the same shape with other weights."""
    return build_tiny_qwen3(tmp_path_factory.mktemp("models") / "retrained", seed=1)


@pytest.mark.slow  # an engine with twenty cycles each
@pytest.mark.parametrize("chip", ["310P3", "910B3"])
def test_cycles_lose_nothing_and_weights_change(
    run_engine: Callable, reference_logits: Callable, qwen3: Path, retrained: Path, chip: str
) -> None:
    """Twenty cycles of level 1; then other weights by every road: level 2, reload_weights, load_weights and back."""
    cycle = [SLEEP, WAKE, QUESTIONS]
    changes = [
        [
            call("sleep", level=2),
            call("wake_up", tags=["weights"]),
            call("collective_rpc", method="reload_weights", kwargs={"weights_path": str(retrained)}),
            call("wake_up", tags=["kv_cache"]),
        ],
        [call("load_directly", folder=str(qwen3))],
        [
            call("collective_rpc", method="reload_weights", kwargs={"weights_path": str(retrained)}),
            call("reset_prefix_cache"),
        ],
    ]
    rounds = [QUESTIONS, *cycle * CYCLES]
    changed = []
    for change in changes:
        rounds += [*change, QUESTIONS]
        changed.append(len(rounds) - 1)
    answered = run_engine(qwen3, rounds, chip, enable_sleep_mode=True)
    found = answered["rounds"]
    cycles = found[: 1 + 3 * CYCLES]
    assert all(tokens_of(answered, number) == tokens_of(answered) for number in range(3, len(cycles), 3))
    replays = [cycles[number]["stats"]["graphs"]["replays"] for number in range(0, len(cycles), 3)]
    assert replays[0] and set(replays) == {replays[0]}
    asleep = [cycles[number]["free_bytes"] for number in range(1, len(cycles), 3)]
    awake = [cycles[number]["free_bytes"] for number in range(2, len(cycles), 3)]
    weights_bytes = (qwen3 / "model.safetensors").stat().st_size
    assert min(a - b for a, b in zip(asleep, awake, strict=True)) > CACHE_BYTES + weights_bytes
    assert len(set(awake[1:])) == 1  # the first cycle tidies up what the start has left
    assert max(asleep[1:]) - min(asleep[1:]) <= SEGMENT_BYTES
    for number, weights in zip(changed, (retrained, qwen3, retrained), strict=True):
        answers = tokens_of(answered, number)
        assert found[number]["stats"]["graphs"]["replays"]
        judged = reference_logits(weights, [a + b for a, b in zip(EVERY, answers, strict=True)])
        assert max(worst_gap(*case) for case in zip(judged, EVERY, answers, strict=True)) < TIE
    assert tokens_of(answered, changed[1]) == tokens_of(answered)
    assert tokens_of(answered, changed[0]) == tokens_of(answered, changed[2]) != tokens_of(answered)
