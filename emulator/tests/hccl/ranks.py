"""Programs of several ranks on one emulated machine: `python -m ...ranks PROGRAM RANK WORLD PORT` is one rank.

A program is a function here; it returns on success and raises otherwise. Ranks use chip RANK, and compare with gloo.
"""

from __future__ import annotations

import datetime
import os
import sys
import time
from typing import Any

import torch
import torch.distributed as dist
import torch_npu  # noqa: F401

OPERATIONS = {
    "sum": dist.ReduceOp.SUM,
    "prod": dist.ReduceOp.PRODUCT,
    "max": dist.ReduceOp.MAX,
    "min": dist.ReduceOp.MIN,
}


def sample(dtype: torch.dtype, count: int, seed: int) -> torch.Tensor:
    """Small whole numbers, exact in every type, so that any order of summation gives the same result."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-2, 3, (count,), generator=generator).to(dtype)


def expect_equal(name: str, actual: torch.Tensor, expected: torch.Tensor) -> None:
    if not torch.equal(actual.cpu(), expected):
        raise AssertionError(f"{name}: {actual.cpu()} is not {expected}")


class Ranks:
    """This rank's groups: HCCL on its chip and gloo beside it."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.gloo = dist.new_group(backend="gloo")

    def on_chip(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clone().npu()


def reductions(ranks: Ranks, dtypes: list[str], operations: list[str]) -> None:
    for count in (1, 1000, 700_001):
        for dtype_name in dtypes:
            for operation in operations:
                data = sample(getattr(torch, dtype_name), count, ranks.rank)
                wide = data.float() if data.dtype in (torch.float16, torch.bfloat16) else data
                actual = ranks.on_chip(data)
                dist.all_reduce(actual, OPERATIONS[operation])
                expected = wide.clone()
                dist.all_reduce(expected, OPERATIONS[operation], group=ranks.gloo)
                expect_equal(f"all_reduce {operation} {dtype_name} {count}", actual, expected.to(data.dtype))


def gathers(ranks: Ranks) -> None:
    for count in (1, 300_001):
        data = sample(torch.float16, count, ranks.rank)
        expected = [torch.empty_like(data) for _ in range(ranks.size)]
        dist.all_gather(expected, data, group=ranks.gloo)
        actual = torch.empty(ranks.size * count, dtype=data.dtype).npu()
        dist.all_gather_into_tensor(actual, ranks.on_chip(data))
        expect_equal(f"all_gather {count}", actual, torch.cat(expected))
        whole = sample(torch.float32, ranks.size * count, ranks.rank)
        share = torch.empty(count).npu()
        dist.reduce_scatter_tensor(share, ranks.on_chip(whole))
        dist.all_reduce(whole, group=ranks.gloo)
        expect_equal(f"reduce_scatter {count}", share, whole.chunk(ranks.size)[ranks.rank])


def uneven_gather(ranks: Ranks) -> None:
    """all_gather of different sizes is HcclAllGatherV, reduce_scatter HcclReduceScatterV, where the chip has them."""
    sizes = [3 + 100_000 * r for r in range(ranks.size)]
    own = sample(torch.float32, sizes[ranks.rank], ranks.rank)
    outputs = [torch.empty(size).npu() for size in sizes]
    dist.all_gather(outputs, ranks.on_chip(own))
    for r, output in enumerate(outputs):
        expect_equal(f"uneven all_gather of rank {r}", output, sample(torch.float32, sizes[r], r))
    inputs = [sample(torch.float32, size, 10 * ranks.rank + r) for r, size in enumerate(sizes)]
    share = torch.empty(sizes[ranks.rank]).npu()
    dist.reduce_scatter(share, [ranks.on_chip(tensor) for tensor in inputs])
    terms = [sample(torch.float32, sizes[ranks.rank], 10 * r + ranks.rank) for r in range(ranks.size)]
    expect_equal("uneven reduce_scatter", share, torch.stack(terms).sum(0))


def all_to_all(ranks: Ranks) -> None:
    data = sample(torch.int32, ranks.size * 50_000, ranks.rank)
    expected = torch.cat([sample(torch.int32, len(data), r).chunk(ranks.size)[ranks.rank] for r in range(ranks.size)])
    actual = torch.empty_like(data).npu()
    dist.all_to_all_single(actual, ranks.on_chip(data))
    expect_equal("all_to_all", actual, expected)
    splits = [[(17 * (source + 1) * (target + 3)) % 23 for target in range(ranks.size)] for source in range(ranks.size)]
    sent = splits[ranks.rank]
    received = [row[ranks.rank] for row in splits]
    data = sample(torch.int32, sum(sent), ranks.rank)
    pieces = [sample(torch.int32, sum(splits[r]), r).split(splits[r])[ranks.rank] for r in range(ranks.size)]
    actual = torch.empty(sum(received), dtype=torch.int32).npu()
    dist.all_to_all_single(actual, ranks.on_chip(data), received, sent)
    expect_equal("all_to_all_v", actual, torch.cat(pieces))


def rooted(ranks: Ranks) -> None:
    root = ranks.size - 1
    data = sample(torch.float32, 400_000, ranks.rank)
    actual = ranks.on_chip(data)
    dist.broadcast(actual, root)
    expect_equal("broadcast", actual, sample(torch.float32, 400_000, root))
    actual = ranks.on_chip(data)
    dist.reduce(actual, root)
    if ranks.rank == root:
        expect_equal("reduce", actual, sum(sample(torch.float32, 400_000, r) for r in range(ranks.size)))
    parts = [sample(torch.float32, 100, 7 * r).npu() for r in range(ranks.size)] if ranks.rank == root else None
    actual = torch.empty(100).npu()
    dist.scatter(actual, parts, root)
    expect_equal("scatter", actual, sample(torch.float32, 100, 7 * ranks.rank))


def messages(ranks: Ranks) -> None:
    """Around the ring one after another, then all at once as a batch."""
    following, preceding = (ranks.rank + 1) % ranks.size, (ranks.rank - 1) % ranks.size
    data = sample(torch.float16, 500_001, ranks.rank)
    actual = torch.empty_like(data).npu()
    if ranks.rank % 2 == 0:
        dist.send(ranks.on_chip(data), following)
        dist.recv(actual, preceding)
    else:
        dist.recv(actual, preceding)
        dist.send(ranks.on_chip(data), following)
    expect_equal("ring", actual, sample(torch.float16, 500_001, preceding))
    batch, outputs = [], []
    for peer in range(ranks.size):
        if peer == ranks.rank:
            continue
        outputs.append((peer, torch.empty(1000).npu()))
        batch.append(dist.P2POp(dist.isend, sample(torch.float32, 1000, 10 * ranks.rank + peer).npu(), peer))
        batch.append(dist.P2POp(dist.irecv, outputs[-1][1], peer))
    for request in dist.batch_isend_irecv(batch):
        request.wait()
    for peer, output in outputs:
        expect_equal(f"batch from {peer}", output, sample(torch.float32, 1000, 10 * peer + ranks.rank))


def grouped(ranks: Ranks) -> None:
    """Collectives, then messages, between the calls that open and close a group (torch_npu's test_hccl_group.py)."""
    backend: Any = dist.distributed_c10d._get_default_group()._get_backend(torch.device("npu"))
    first, second = (torch.full((1 << 16,), float(ranks.rank + n)).npu() for n in (1, 2))
    backend._group_start()
    works = [dist.all_reduce(each, async_op=True) for each in (first, second)]
    backend._group_end()
    for work in works:
        work.wait()
    total = float(sum(range(ranks.size)))
    expect_equal("first of a group", first, torch.full((1 << 16,), total + ranks.size))
    expect_equal("second of a group", second, torch.full((1 << 16,), total + 2 * ranks.size))
    if ranks.rank > 1:
        return
    move = dist.isend if ranks.rank == 0 else dist.irecv
    backend._group_start()
    works = [move(each, 1 - ranks.rank) for each in (first, second)]
    backend._group_end()
    for work in works:
        work.wait()
    expect_equal("message of a group", second, torch.full((1 << 16,), total + 2 * ranks.size))


def subgroups(ranks: Ranks) -> None:
    """Two halves and the whole, with operations of all of them under way at once."""
    halves = [list(range(ranks.size // 2)), list(range(ranks.size // 2, ranks.size))]
    groups = [dist.new_group(half) for half in halves]
    mine = ranks.rank // (ranks.size // 2)
    small, large = torch.full((4,), float(ranks.rank)).npu(), torch.full((300_000,), 1.0).npu()
    for _ in range(5):
        works = [dist.all_reduce(large, async_op=True), dist.all_reduce(small, group=groups[mine], async_op=True)]
        for work in works:
            work.wait()
    torch.npu.synchronize()
    total = float(sum(halves[mine])) * (ranks.size // 2) ** 4
    expect_equal("half", small, torch.full((4,), total))
    expect_equal("whole", large, torch.full((300_000,), float(ranks.size**5)))


def captured(ranks: Ranks) -> None:
    """A collective inside a graph, replayed with new data."""
    data, share = torch.zeros(1000).npu(), torch.empty(1000 * ranks.size).npu()
    dist.all_reduce(data)
    torch.npu.synchronize()
    graph = torch.npu.NPUGraph()
    with torch.npu.graph(graph):
        doubled = data * 2
        dist.all_reduce(doubled)
        dist.all_gather_into_tensor(share, doubled)
    for step in range(1, 4):
        data.fill_(float(ranks.rank + step))
        graph.replay()
        total = 2.0 * sum(r + step for r in range(ranks.size))
        expect_equal(f"replay {step}", doubled, torch.full((1000,), total))
        expect_equal(f"replayed gather {step}", share, torch.full((1000 * ranks.size,), total))


def captured_twice(ranks: Ranks) -> None:
    """Two graphs with the collectives of 64 layers: what vllm-ascend documents for the 1,024 events of a 310P."""
    data = torch.zeros(16).npu()
    dist.all_reduce(data)
    torch.npu.synchronize()
    graphs = [torch.npu.NPUGraph() for _ in range(2)]
    for graph in graphs:
        with torch.npu.graph(graph):
            for _ in range(64 * 2 + 1):
                dist.all_reduce(data)
    for graph in graphs:
        graph.replay()
    expect_equal("zeros", data, torch.zeros(16))


def dies(ranks: Ranks) -> None:
    """The last rank kills itself while the others wait for it."""
    data = torch.ones(10).npu()
    dist.all_reduce(data)
    torch.npu.synchronize()
    if ranks.rank == ranks.size - 1:
        os.kill(os.getpid(), 9)
    started = time.monotonic()
    try:
        dist.all_reduce(data)
        torch.npu.synchronize()
    except RuntimeError as error:
        print(f"noticed after {time.monotonic() - started:.1f} s: {error}", flush=True)
        os._exit(3)  # torch_npu's own shutdown would wait for the dead rank
    raise AssertionError("the all_reduce succeeded without a rank")


def unsupported(ranks: Ranks) -> None:
    try:
        dist.broadcast(torch.ones(3).npu(), 0)
        torch.npu.synchronize()
    except RuntimeError:
        os._exit(3)


PROGRAMS = {
    "everything on 310P": [
        lambda r: reductions(r, ["float16", "float32", "int32", "int8"], list(OPERATIONS)),
        gathers,
        all_to_all,
        uneven_gather,
    ],
    "reductions and gathers": [lambda r: reductions(r, ["float16", "float32"], ["sum"]), gathers],
    "everything on 910B": [
        lambda r: reductions(r, ["float16", "bfloat16", "float32", "int32", "int64"], ["sum", "max", "min"]),
        gathers,
        all_to_all,
        rooted,
        messages,
        grouped,
    ],
    "subgroups": [subgroups],
    "captured": [captured],
    "captured_twice": [captured_twice],
    "dies": [dies],
    "unsupported": [unsupported],
}


def main(program: str, rank: int, size: int, port: int) -> None:
    torch.npu.set_device(rank)
    dist.init_process_group(
        "hccl",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=120),
    )
    ranks = Ranks(rank, size)
    for step in PROGRAMS[program]:
        step(ranks)
    torch.npu.synchronize()
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
