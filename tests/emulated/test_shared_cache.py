"""Two servers and a folder: one computes a prompt, the other goes on from its blocks, and answers as one does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .assertions import requests, tokens_of

LONG = [(31 * index) % 40000 + 100 for index in range(300)]  # two whole blocks of 128, in two chunks of 256
LONGER = LONG + [7] * 100  # a third block, which begins in LONG's tail
OTHER = [(17 * index) % 40000 + 100 for index in range(300)]
ROUNDS = [requests(prompt) for prompt in (LONG, LONGER, OTHER)]


def sharing(folder: Path, role: str, **others: Any) -> dict[str, Any]:
    transfer = {
        "kv_connector": "ExampleConnector",
        "kv_role": role,
        "kv_connector_extra_config": {"shared_storage_path": str(folder), **others},
    }
    return {"kv_transfer_config": transfer}


def recomputing(folder: Path) -> dict[str, Any]:
    options = sharing(folder, "kv_consumer")
    options["kv_transfer_config"]["kv_load_failure_policy"] = "recompute"
    return options | {"async_scheduling": False}


def cached(engine: dict[str, Any]) -> list[int]:
    return [number["answers"][0]["cached_tokens"] for number in engine["rounds"]]


@pytest.mark.slow  # five engines
@pytest.mark.parametrize(("chip", "ranks"), [("310P3", 1), ("910B3", 1), ("310P3", 2)])
def test_another_server_goes_on_from_a_prompt(
    run_engines: Callable, qwen3: Path, tmp_path: Path, chip: str, ranks: int
) -> None:
    folder, broken = tmp_path / "blocks", tmp_path / "broken"
    scale = {"tensor_parallel_size": ranks}
    prefill = scale | sharing(folder, "kv_producer") | {"rounds": [requests(LONG, max_tokens=1)]}
    plain, _ = run_engines(qwen3, ROUNDS, [scale, prefill], chip, ranks)
    saved = sorted(folder.rglob("*.safetensors"))
    assert len(saved) == 2 * ranks and not list(folder.rglob("*.part"))
    shutil.copytree(folder, broken)
    for file in broken.rglob(f"*{saved[-1].stem[:20]}*"):
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2] + b"\x3c" * (len(whole) - len(whole) // 2))

    decode, wary, strange = run_engines(
        qwen3,
        ROUNDS,
        [
            scale | sharing(folder, "kv_consumer"),
            scale | recomputing(broken),
            scale | sharing(folder, "kv_consumer", namespace="another model"),
        ],
        chip,
        ranks,
    )
    answers = [tokens_of(plain, number) for number in range(len(ROUNDS))]
    for engine in (decode, wary, strange):  # the wary one computed the spoiled block again
        assert [tokens_of(engine, number) for number in range(len(ROUNDS))] == answers
    # The second is found in the server's own prefix cache; what was never computed is nowhere.
    assert cached(plain) == cached(strange) == [0, 256, 0]
    assert cached(decode) == [256, 256, 0]
    assert len(sorted(folder.rglob("*.safetensors"))) == 2 * ranks  # who only decodes saves nothing


@pytest.mark.slow
def test_a_server_that_does_both_saves_what_it_did_not_find(run_engines: Callable, qwen3: Path, tmp_path: Path) -> None:
    both = sharing(tmp_path, "kv_both")
    first, second = run_engines(qwen3, ROUNDS, [both, both])
    assert cached(first) == [0, 256, 0]
    assert cached(second) == [256, 384, 256]
    assert [tokens_of(first, number) for number in range(3)] == [tokens_of(second, number) for number in range(3)]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2 + 1 + 2
