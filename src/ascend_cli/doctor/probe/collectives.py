"""Collectives of two chips: each case starts two processes of its own, one for each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist

from ascend_cli.doctor.probe.bench import Bench
from ascend_cli.doctor.probe.case import EMULATED_PATIENCE, Case, NotHere, WrongResult
from ascend_facts.chips import ChipSpec

RANKS = 2
REPLAYS, SWEPT = 100, 10
LIMIT_S = 75.0
SWEEP_BYTES = (1 << 10, 10 << 10, 128 << 10, 1 << 20, 16 << 20)


def collectives(chip: ChipSpec) -> Iterator[Case]:
    yield Case("all_reduce, all_gather, in graphs, 100 replays; time by size", run_ranks)


def run_ranks(bench: Bench) -> None:
    if torch.npu.device_count() < RANKS:
        raise NotHere("one chip: collectives need two")
    port, limit_s = free_port(), LIMIT_S * (EMULATED_PATIENCE if bench.emulated else 1)
    command = [sys.executable, "-m", "ascend_cli.doctor.probe.collectives", str(port)]
    ranks = [
        subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in range(RANKS)
    ]
    try:
        answers = [rank.communicate(timeout=limit_s) for rank in ranks]
    except subprocess.TimeoutExpired:
        for rank in ranks:
            rank.kill()
        raise WrongResult(f"the ranks had not answered after {limit_s:.0f} s") from None
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


class Rank:
    """One rank's complaints and what it measured."""

    def __init__(self, rank: int, half: torch.dtype) -> None:
        self.rank, self.half = rank, half
        self.device = torch.device("npu")
        self.wrong: list[str] = []
        self.facts: dict[str, Any] = {}

    def check(self, name: str, found: torch.Tensor, expected: torch.Tensor) -> None:
        if not torch.equal(found.cpu(), expected):
            self.wrong.append(f"{name} on rank {self.rank}")

    def eager(self) -> None:
        for dtype in dict.fromkeys((torch.float16, self.half, torch.float32, torch.int32)):
            for count in (1, 9, 5120):
                x = (torch.arange(count) % 50 + self.rank).to(dtype).to(self.device)
                dist.all_reduce(x)
                self.check(f"all_reduce {dtype}", x, (torch.arange(count) % 50 * 2 + 1).to(dtype))
        for dtype in dict.fromkeys((torch.float16, self.half, torch.int32, torch.int64)):
            parts = [torch.empty(33, dtype=dtype, device=self.device) for _ in range(RANKS)]
            dist.all_gather(parts, torch.full((33,), self.rank + 1, dtype=dtype, device=self.device))
            self.check(f"all_gather {dtype}", torch.cat(parts), torch.tensor([1] * 33 + [2] * 33, dtype=dtype))

    def in_a_graph(self) -> None:
        from ascend_plugin.graphs.events import available_events

        x = torch.ones(5120, dtype=torch.float16, device=self.device)
        torch.npu.synchronize()
        before, captured = available_events(), torch.npu.NPUGraph()
        with torch.npu.stream(torch.npu.Stream()):
            captured.capture_begin(capture_error_mode="thread_local")
            y = x * 1
            for _ in range(4):
                dist.all_reduce(y)
            captured.capture_end()
        after = available_events()
        if before is not None and after is not None:
            self.facts["events_of_four_collectives"] = before - after
        for replay in range(REPLAYS):
            x.fill_(replay % 7)
            torch.npu.current_stream().synchronize()
            captured.replay()
        torch.npu.synchronize()
        last = float((REPLAYS - 1) % 7 * RANKS**4)
        self.check("all_reduce in a graph", y, torch.full((5120,), last, dtype=torch.float16))

    def sweep(self) -> None:
        times = {}
        for size in SWEEP_BYTES:
            data = torch.zeros(size // 2, dtype=torch.float16, device=self.device)
            dist.all_reduce(data)
            start, end = (torch.npu.Event(enable_timing=True) for _ in range(2))
            torch.npu.synchronize()
            start.record()
            for _ in range(SWEPT):
                dist.all_reduce(data)
            end.record()
            torch.npu.synchronize()
            times[str(size)] = round(start.elapsed_time(end) * 1e3 / SWEPT, 2)
        self.facts["all_reduce_us"] = times


def rank_main(port: int, number: int) -> None:
    """One rank: prints its complaints and, of rank 0, what was measured."""
    import torch_npu  # noqa: F401

    from ascend_facts import chips
    from ascend_plugin import detection

    torch.npu.set_device(number)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("hccl", rank=number, world_size=RANKS)
    rank = Rank(number, getattr(torch, chips.find(detection.soc_version() or "").preferred_dtype))
    rank.eager()
    rank.in_a_graph()
    rank.sweep()
    print("RANK " + json.dumps({"wrong": rank.wrong, "facts": rank.facts}), flush=True)
    os._exit(0)  # the process groups are torn down in an order that depends on the other rank


if __name__ == "__main__":
    rank_main(int(sys.argv[1]), int(sys.argv[2]))
