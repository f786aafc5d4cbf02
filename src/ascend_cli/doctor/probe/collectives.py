"""Collectives of two chips: each case starts two processes of its own, one for each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

from ascend_cli.doctor.probe.bench import Bench
from ascend_cli.doctor.probe.case import Case, NotHere, WrongResult
from ascend_facts.chips import ChipSpec

RANKS = 2
LIMIT_S = 75.0
SWEEP_BYTES = (1 << 10, 10 << 10, 128 << 10, 1 << 20, 16 << 20)


def collectives(chip: ChipSpec) -> Iterator[Case]:
    yield Case("all_reduce, all_gather, in graphs, 100 replays; time by size", partial(run_ranks))


def run_ranks(bench: Bench) -> None:
    import torch

    if torch.npu.device_count() < RANKS:
        raise NotHere("one chip: collectives need two")
    port = free_port()
    command = [sys.executable, "-m", "ascend_cli.doctor.probe.collectives", str(port)]
    ranks = [
        subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in range(RANKS)
    ]
    try:
        answers = [rank.communicate(timeout=LIMIT_S) for rank in ranks]
    except subprocess.TimeoutExpired:
        for rank in ranks:
            rank.kill()
        raise WrongResult(f"the ranks had not answered after {LIMIT_S:.0f} s") from None
    lines = [line for out, _ in answers for line in out.splitlines() if line.startswith("RANK ")]
    if len(lines) != RANKS:
        raise RuntimeError(answers[0][1].strip()[-300:] or answers[1][1].strip()[-300:])
    found = [json.loads(line.removeprefix("RANK ")) for line in lines]
    bench.facts.update(found[0]["facts"])
    wrong = [complaint for rank in found for complaint in rank["wrong"]]
    if wrong:
        raise WrongResult("; ".join(wrong))


def free_port() -> int:
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def rank_main(port: int, rank: int) -> None:
    """One rank: prints its complaints and, of rank 0, what was measured."""
    import torch
    import torch.distributed as dist
    import torch_npu  # noqa: F401

    from ascend_plugin.graphs.events import available_events

    torch.npu.set_device(rank)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("hccl", rank=rank, world_size=RANKS)
    device, wrong = torch.device("npu"), []
    facts: dict[str, Any] = {}

    def check(name: str, found: torch.Tensor, expected: torch.Tensor) -> None:
        if not torch.equal(found.cpu(), expected):
            wrong.append(f"{name} on rank {rank}")

    for dtype in (torch.float16, torch.float32, torch.int32):
        for count in (1, 9, 5120):
            x = (torch.arange(count) % 50 + rank).to(dtype).to(device)
            dist.all_reduce(x)
            check(f"all_reduce {dtype}", x, (torch.arange(count) % 50 * 2 + 1).to(dtype))
    for dtype in (torch.float16, torch.int32, torch.int64):
        parts = [torch.empty(33, dtype=dtype, device=device) for _ in range(RANKS)]
        dist.all_gather(parts, torch.full((33,), rank + 1, dtype=dtype, device=device))
        check(f"all_gather {dtype}", torch.cat(parts), torch.tensor([1] * 33 + [2] * 33, dtype=dtype))
    x = torch.ones(5120, dtype=torch.float16, device=device)
    torch.npu.synchronize()
    before, captured = available_events(), torch.npu.NPUGraph()
    stream = torch.npu.Stream()
    with torch.npu.stream(stream):
        captured.capture_begin(capture_error_mode="thread_local")
        y = x * 1
        for _ in range(4):
            dist.all_reduce(y)
        captured.capture_end()
    after = available_events()
    if before is not None and after is not None:
        facts["events_of_four_collectives"] = before - after
    for replay in range(100):
        x.fill_(replay % 7)
        torch.npu.current_stream().synchronize()
        captured.replay()
    torch.npu.synchronize()
    check("all_reduce in a graph", y, torch.full((5120,), 99 % 7 * 16, dtype=torch.float16))
    facts["all_reduce_us"] = {}
    for size in SWEEP_BYTES:
        data = torch.zeros(size // 2, dtype=torch.float16, device=device)
        dist.all_reduce(data)
        start, end = (torch.npu.Event(enable_timing=True) for _ in range(2))
        torch.npu.synchronize()
        start.record()
        for _ in range(10):
            dist.all_reduce(data)
        end.record()
        torch.npu.synchronize()
        facts["all_reduce_us"][str(size)] = round(start.elapsed_time(end) * 100, 2)
    print("RANK " + json.dumps({"wrong": wrong, "facts": facts}), flush=True)
    os._exit(0)  # the process groups are torn down in an order that depends on the other rank


if __name__ == "__main__":
    rank_main(int(sys.argv[1]), int(sys.argv[2]))
