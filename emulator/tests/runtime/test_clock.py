"""Modelled time: what operations take by their shapes, how streams, events, graphs and ranks share it, and that
neither computing nor memory is needed for it. Only modelled times are asserted, never those of the test's machine."""

from __future__ import annotations

import ctypes
import json
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from ascend_emulator.chips import find
from ascend_emulator.launcher import emulate
from ascend_emulator.worker import Worker

from ascend_facts import time_model

from . import cann

if TYPE_CHECKING:
    from ascend_emulator.launcher import Machine

CHIP = find("310P3")
MIB, GIB = 1 << 20, 1 << 30
# Enough work to keep a rank's stream busy while the others submit theirs.
HEAD_START_BYTES = 16 * GIB

Start = Callable[..., Worker]


def copy_ms(size_bytes: int) -> float:
    """A copy within device memory: a launch, one read and one write."""
    return CHIP.launch_us / 1e3 + 2 * size_bytes / (CHIP.bandwidth_gbps * CHIP.bandwidth_share * 1e6)


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """A process on chips with a clock; tests share those of equal settings."""
    workers: dict[object, Worker] = {}
    with ExitStack() as stack:

        def begin(clock: str = "timing", **environment: str) -> Worker:
            key = (clock, *environment.items())
            if key not in workers:
                machine = stack.enter_context(emulate(chip=CHIP.name, count=4, clock=clock))
                workers[key] = Worker({**machine.environment, "TASK_QUEUE_ENABLE": "0", **environment})
                stack.callback(workers[key].close)
            return workers[key]

        yield begin


class Gate:
    """Holds a stream until all that is measured was submitted: then no time of it depends on how fast the host is."""

    def __init__(self, stream: Any) -> None:
        self.opened = threading.Event()
        self.kept = cann.host_function(stream, self.opened.wait)

    def open(self) -> None:
        self.opened.set()


class Bench:
    """Streams, events and copies of a process, through the C API."""

    def __init__(self) -> None:
        cann.set_device()
        self.source, self.target = cann.malloc(HEAD_START_BYTES), cann.malloc(HEAD_START_BYTES)
        self.gates: list[Gate] = []

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exception: object) -> None:
        self.open_gates()
        for address in (self.source, self.target):
            cann.call("aclrtFree", address)

    def copies(self, stream: Any, count: int, size_bytes: int) -> None:
        for _ in range(count):
            cann.copy(self.target, self.source, size_bytes, stream)

    def head_start(self, stream: Any) -> None:
        self.copies(stream, 1, HEAD_START_BYTES)

    def hold(self, stream: Any) -> None:
        """Until a time is asked for."""
        self.gates.append(Gate(stream))

    def open_gates(self) -> None:
        for gate in self.gates:
            gate.open()

    def mark(self, stream: Any) -> Any:
        event = cann.create("aclrtCreateEventExWithFlag", 1)
        cann.call("aclrtRecordEvent", event, stream)
        return event

    def wait(self, stream: Any, event: Any) -> None:
        cann.call("aclrtStreamWaitEvent", stream, event)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        self.open_gates()
        cann.call("aclrtSynchronizeEvent", end)
        elapsed = ctypes.c_float()
        cann.call("aclrtEventElapsedTime", ctypes.byref(elapsed), start, end)
        return elapsed.value


def time_copies(count: int, size_bytes: int) -> float:
    with Bench() as bench:
        stream = cann.stream()
        bench.hold(stream)
        start = bench.mark(stream)
        bench.copies(stream, count, size_bytes)
        return bench.elapsed_ms(start, bench.mark(stream))


@pytest.mark.parametrize("size_bytes", [64, 3 * MIB, 700 * MIB])
def test_copies_take_their_launches_and_bytes(start: Start, size_bytes: int) -> None:
    assert start().call(time_copies, 10, size_bytes) == pytest.approx(10 * copy_ms(size_bytes), rel=1e-3)


def test_dilation_slows_the_wall_clock_not_modeled_time(start: Start) -> None:
    worker = start(ASCEND_EMULATOR_TIME_DILATION="3")
    assert worker.call(time_copies, 10, 3 * MIB) == pytest.approx(10 * copy_ms(3 * MIB), rel=1e-3)


def time_two_streams(dependent: bool) -> float:
    with Bench() as bench:
        first, second = cann.stream(), cann.stream()
        bench.hold(first)
        start = bench.mark(first)
        bench.wait(second, start)
        bench.copies(first, 10, 100 * MIB)
        if dependent:
            bench.wait(second, bench.mark(first))
        bench.copies(second, 10, 100 * MIB)
        bench.wait(first, bench.mark(second))
        return bench.elapsed_ms(start, bench.mark(first))


def test_streams_overlap_unless_an_event_orders_them(start: Start) -> None:
    worker = start()
    assert worker.call(time_two_streams, dependent=False) == pytest.approx(10 * copy_ms(100 * MIB), rel=1e-3)
    assert worker.call(time_two_streams, dependent=True) == pytest.approx(20 * copy_ms(100 * MIB), rel=1e-3)


def time_a_graph(fork: bool, replays: int) -> float:
    """Ten copies on the captured stream, ten more on it or beside it."""
    with Bench() as bench:
        main, side = cann.stream(), cann.stream()
        cann.call("aclmdlRICaptureBegin", main, cann.RELAXED)
        if fork:
            bench.wait(side, bench.mark(main))
        bench.copies(main, 10, 100 * MIB)
        bench.copies(side if fork else main, 10, 100 * MIB)
        if fork:
            bench.wait(main, bench.mark(side))
        graph = ctypes.c_void_p()
        cann.call("aclmdlRICaptureEnd", main, ctypes.byref(graph))
        bench.hold(main)
        start = bench.mark(main)
        for _ in range(replays):
            cann.call("aclmdlRIExecuteAsync", graph, main)
        return bench.elapsed_ms(start, bench.mark(main))


def test_a_replay_takes_the_time_of_its_longest_path(start: Start) -> None:
    worker = start()
    assert worker.call(time_a_graph, fork=False, replays=3) == pytest.approx(60 * copy_ms(100 * MIB), rel=1e-3)
    assert worker.call(time_a_graph, fork=True, replays=3) == pytest.approx(30 * copy_ms(100 * MIB), rel=1e-3)


def account_for_copies() -> dict[str, int]:
    """Four copies, and a graph of six replayed twice."""
    from ascend_emulator import counters

    with Bench() as bench:
        stream = cann.stream()
        cann.call("aclmdlRICaptureBegin", stream, cann.RELAXED)
        bench.copies(stream, 6, 3 * MIB)
        graph = ctypes.c_void_p()
        cann.call("aclmdlRICaptureEnd", stream, ctypes.byref(graph))
        counters.reset_stats()
        bench.copies(stream, 4, 3 * MIB)
        for _ in range(2):
            cann.call("aclmdlRIExecuteAsync", graph, stream)
        cann.call("aclrtSynchronizeStream", stream)
        accounted: dict[str, int] = counters.stats()["modeled_ns"]
        return accounted


def test_modeled_time_is_accounted_for_by_task(start: Start) -> None:
    """A replay is the sum of its tasks and no task of its own."""
    assert start().call(account_for_copies) == {"Memcpy": pytest.approx(16 * copy_ms(3 * MIB) * 1e6, rel=1e-3)}


def time_a_lookup() -> float:
    import torch

    table = torch.empty(1 << 20, 128, dtype=torch.float16, device="npu")
    rows = torch.zeros(4, dtype=torch.int64, device="npu")
    start, end = (torch.npu.Event(enable_timing=True) for _ in range(2))
    gate = Gate(ctypes.c_void_p(torch.npu.current_stream().npu_stream))
    start.record()
    table.index_select(0, rows)
    end.record()
    gate.open()
    torch.npu.synchronize()
    return float(start.elapsed_time(end))


def test_a_lookup_reads_its_rows_and_not_the_table(start: Start) -> None:
    bytes_a_ms = CHIP.bandwidth_gbps * CHIP.bandwidth_share * 1e6
    expected_ms = CHIP.launch_us / 1e3 + (4 * 8 + 2 * 4 * 128 * 2) / bytes_a_ms
    assert start().call(time_a_lookup) == pytest.approx(expected_ms, rel=1e-2)


def query_before_and_after() -> tuple[tuple[bool, float], tuple[bool, float]]:
    """Whether the event behind a copy of 8 GiB was reached, and for how many ms at most it had been on its way."""
    import torch

    torch.npu.empty_cache()
    event = torch.npu.Event()
    weight = torch.empty(8 * GIB, dtype=torch.int8, device="npu")
    target = torch.empty_like(weight)
    torch.npu.synchronize()
    began = time.monotonic()
    target.copy_(weight)
    event.record()
    before = event.query(), (time.monotonic() - began) * 1e3
    torch.npu.synchronize()
    return before, (event.query(), (time.monotonic() - began) * 1e3)


def test_an_event_is_reached_when_its_modeled_time_has_come(start: Start) -> None:
    """Not before, whatever the wall clock says of a host that is slow."""
    (early, early_ms), (late, late_ms) = start().call(query_before_and_after)
    assert not early or early_ms >= copy_ms(8 * GIB)
    assert late and late_ms >= copy_ms(8 * GIB)


def time_a_matmul(tokens: int, nz: bool) -> float:
    import torch
    import torch_npu

    torch.npu.config.allow_internal_format = True
    x = torch.empty(tokens, 5120, dtype=torch.float16, device="npu")
    weight = torch.empty(5120, 51200, dtype=torch.float16, device="npu")
    if nz:
        weight = torch_npu.npu_format_cast(weight, 29)
    out = torch.empty(tokens, 51200, dtype=torch.float16, device="npu")
    start, end = (torch.npu.Event(enable_timing=True) for _ in range(2))
    gate = Gate(ctypes.c_void_p(torch.npu.current_stream().npu_stream))
    start.record()
    torch.mm(x, weight, out=out)
    end.record()
    gate.open()
    torch.npu.synchronize()
    return float(start.elapsed_time(end))


def test_a_matmul_is_bound_by_bytes_or_by_the_cube(start: Start) -> None:
    worker = start()
    weight_bytes = 5120 * 51200 * 2
    bytes_a_ms = CHIP.bandwidth_gbps * CHIP.bandwidth_share * 1e6
    launch_ms = CHIP.launch_us / 1e3
    for tokens, nz, expected_ms in [
        (1, True, launch_ms + (weight_bytes + (5120 + 51200) * 2) / bytes_a_ms),
        (1, False, launch_ms + (3 * weight_bytes + (5120 + 51200) * 2) / bytes_a_ms),  # converted to NZ first
        # 32 x 200 tiles of 128 x 256 keep eight cores busy in all of 800 rounds.
        (4096, True, launch_ms + 2 * 4096 * 5120 * 51200 / (CHIP.fp16_tflops * CHIP.cube_share * 1e9)),
    ]:
        assert worker.call(time_a_matmul, tokens, nz) == pytest.approx(expected_ms, rel=1e-3)


def fill_a_chip() -> tuple[int, str]:
    """40 GiB of weights written, cast and multiplied with; then more than the chip has."""
    import torch
    import torch_npu

    torch.npu.empty_cache()
    torch.npu.config.allow_internal_format = True
    weights = [torch.empty(5120, 1 << 20, dtype=torch.float16, device="npu").uniform_() for _ in range(2)]
    weights.append(torch_npu.npu_format_cast(torch.zeros(5120, 1 << 20, dtype=torch.float16, device="npu"), 29))
    x = torch.ones(1, 5120, dtype=torch.float16, device="npu")
    for weight in weights:
        torch.mm(x, weight)
    weights[0][:, : 1 << 17].copy_(torch.empty(5120, 1 << 17, dtype=torch.float16))
    torch.npu.synchronize()
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        torch.empty(24 * GIB, dtype=torch.int8, device="npu")
    except torch.OutOfMemoryError as error:
        return peak_kib >> 10, str(error)
    return peak_kib >> 10, ""


@pytest.mark.parametrize("clock", ["timing", "skip"])
def test_device_memory_is_counted_but_not_backed(start: Start, clock: str) -> None:
    peak_mib, complaint = start(clock).call(fill_a_chip)
    assert peak_mib < 4096
    assert "NPU out of memory" in complaint


def steer_a_program() -> dict[str, Any]:
    import torch

    logits = torch.full((4, 151936), float("nan"), dtype=torch.float16, device="npu")
    lengths = torch.tensor([5, 6, 7], dtype=torch.int32).npu()
    lengths += 1
    order = torch.tensor([2, 0, 1]).npu()
    return {
        "tokens": logits.float().argmax(-1).tolist(),
        "lengths": lengths[order].tolist(),
        "kept": torch.tensor([0, 3, 0, 4]).npu().nonzero().flatten().tolist(),
    }


@pytest.mark.parametrize("clock", ["timing", "skip"])
def test_what_steers_the_program_is_defined(start: Start, clock: str) -> None:
    """Token ids are valid though nothing computed them; integers that follow from integers are right."""
    steered = start(clock).call(steer_a_program)
    assert steered == {"tokens": [0] * 4, "lengths": [8, 6, 7], "kept": [1, 3]}


def compute_and_time() -> tuple[float, list[float]]:
    import torch

    x = torch.arange(4.0).npu()
    start, end = (torch.npu.Event(enable_timing=True) for _ in range(2))
    start.record()
    y = x * 2
    end.record()
    torch.npu.synchronize()
    return float(start.elapsed_time(end)), y.tolist()


def test_both_computes_and_takes_modeled_time(start: Start) -> None:
    elapsed_ms, result = start("both").call(compute_and_time)
    assert elapsed_ms >= CHIP.launch_us / 1e3
    assert result == [0, 2, 4, 6]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


RANK = """
import json, os, sys, torch, torch_npu
import torch.distributed as dist
rank, size = int(sys.argv[1]), int(sys.argv[2])
torch.npu.set_device(rank)
dist.init_process_group("hccl", rank=rank, world_size=size, init_method="tcp://127.0.0.1:" + sys.argv[3])
head_start = torch.empty(16 << 30, dtype=torch.int8, device="npu")
dist.all_reduce(head_start[:16])  # the communicator is made here
torch.npu.synchronize()
dist.barrier()

def timed(collective, late):
    start, ready, end = (torch.npu.Event(enable_timing=True) for _ in range(3))
    start.record()
    if rank == 1 or not late:  # comes late: this many bytes are filled first
        head_start.fill_(1)
    ready.record()
    collective()
    end.record()
    torch.npu.synchronize()
    dist.barrier()
    return [start.elapsed_time(ready), start.elapsed_time(end), ready.elapsed_time(end)]

def data(size_bytes):
    return torch.empty(size_bytes // 2, dtype=torch.float16, device="npu")

large, small = data(int(sys.argv[4])), data(10 << 10)
whole, part = data(size << 20), data(1 << 20)
print(json.dumps({
    "late": timed(lambda: dist.all_reduce(large), True),
    "all_reduce": timed(lambda: dist.all_reduce(small), False)[2],
    "all_gather": timed(lambda: dist.all_gather_into_tensor(whole, part), False)[2],
    "reduce_scatter": timed(lambda: dist.reduce_scatter_tensor(part, whole), False)[2],
}))
"""


def times_of_ranks(machine: Machine, size: int, data_bytes: int) -> list[dict[str, Any]]:
    port = free_port()
    ranks = [
        machine.popen(
            [sys.executable, "-c", RANK, str(rank), str(size), str(port), str(data_bytes)], stdout=-1, text=True
        )
        for rank in range(size)
    ]
    return [json.loads(rank.communicate(timeout=120)[0].splitlines()[-1]) for rank in ranks]


@pytest.mark.parametrize(("chip", "size"), [("310P3", 2), ("310P3", 4), ("910B3", 4)])
def test_a_collective_ends_when_the_last_rank_has_come_and_takes_the_form_that_hccl_chooses(
    emulated: Callable[..., Machine], chip: str, size: int
) -> None:
    """Over the card's link for two ranks, over the machine's for four; ascend_facts has the same forms in Python."""
    spec, data_bytes = find(chip), 256 * MIB
    times = times_of_ranks(emulated(chip=chip, count=4, clock="timing"), size, data_bytes)
    link = spec.link_of(size)

    def expected_ms(collective: time_model.Collective, size_bytes: int) -> float:
        return time_model.collective_us(spec, link, collective, size, size_bytes) / 1e3

    wire_ms, (filling_ms, _, reducing_ms) = expected_ms("all_reduce", data_bytes), times[1]["late"]
    assert reducing_ms == pytest.approx(wire_ms, rel=1e-3)
    for rank, of_rank in enumerate(times):
        if rank != 1:  # it waited for rank 1, which is modelled, though the hosts began at slightly different times
            assert of_rank["late"][1] > wire_ms + filling_ms / 2
    last = {name: min(of_rank[name] for of_rank in times) for name in ("all_reduce", "all_gather", "reduce_scatter")}
    assert last["all_reduce"] == pytest.approx(expected_ms("all_reduce", 10 << 10), rel=2e-2)
    assert last["all_gather"] == pytest.approx(expected_ms("all_gather", size << 20), rel=2e-2)
    assert last["reduce_scatter"] == pytest.approx(expected_ms("reduce_scatter", size << 20), rel=2e-2)
