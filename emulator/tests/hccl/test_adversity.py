"""Ranks that disagree, pass what is no buffer, are lost, or never speak: every other rank is told, and none waits on.

The ranks are threads and streams of one process on two chips, through HCCL's C API.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ascend_emulator.launcher import Machine
from ascend_emulator.worker import Worker
from runtime import cann
from runtime.faulty import HANGS, LOSING_OPERATOR, LOST, answer, code_of, lose_the_chip, process

FLOAT, SUM = 4, 0
PARAMETER, POINTER, NOT_SUPPORTED = 1, 2, 5  # HCCL_E_PARA, HCCL_E_PTR, HCCL_E_NOT_SUPPORT
RANKS = 2
ROOT_INFO_BYTES = 4108
COUNT = 16
U64 = ctypes.c_uint64


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with process(tmp_path_factory.mktemp("faults"), LOSING_OPERATOR, count=RANKS) as worker:
        yield worker


@pytest.fixture
def worker(shared: Worker) -> Iterator[Worker]:
    yield shared
    for device in range(RANKS):
        shared.call(cann.call, "aclrtResetDeviceForce", device)


kept: list[Any] = []  # functions that a stream may still be returning from


class Rank:
    """One rank's chip, stream, communicators and a buffer."""

    def __init__(self, device: int, communicators: list[ctypes.c_void_p]) -> None:
        self.device, self.communicators = device, communicators
        cann.set_device(device)
        self.stream = cann.stream()
        self.buffer = cann.malloc(4096)
        cann.fill(self.buffer, 0, 4096, self.stream)

    def use(self) -> ctypes.c_void_p:
        cann.set_device(self.device)
        return self.communicators[0]


def ranks(communicators: int = 1) -> list[Rank]:
    made = []
    for _ in range(communicators):
        handles = (ctypes.c_void_p * RANKS)()
        assert (
            cann.hccl().HcclCommInitAll(ctypes.c_uint32(RANKS), (ctypes.c_int32 * RANKS)(*range(RANKS)), handles) == 0
        )
        made.append(handles)
    return [Rank(device, [ctypes.c_void_p(handles[device]) for handles in made]) for device in range(RANKS)]


def outcome(rank: Rank) -> tuple[int, str]:
    """What a synchronization of the rank's stream answers."""
    cann.set_device(rank.device)
    code = answer("aclrtSynchronizeStream", rank.stream)
    if code in (0, HANGS):
        return code, ""
    try:
        cann.synchronize(rank.stream)
    except cann.AclError as error:
        return code, str(error)
    return code, ""


def row(*values: int) -> Any:
    return (ctypes.c_uint64 * RANKS)(*values)


def all_to_all_v(sent: list[list[int]], received: list[list[int]]) -> list[tuple[int, str]]:
    members = ranks()
    for rank, member in enumerate(members):
        communicator = member.use()
        offsets = row(0, 64)
        code = cann.hccl().HcclAlltoAllV(
            member.buffer, row(*sent[rank]), offsets, FLOAT,
            member.buffer, row(*received[rank]), offsets, FLOAT,
            communicator, member.stream,
        )  # fmt: skip
        assert code == 0
    return [outcome(member) for member in members]


def test_counts_of_all_to_all_v_that_agree(worker: Worker) -> None:
    assert worker.call(all_to_all_v, [[1, 2], [3, 4]], [[1, 3], [2, 4]]) == [(0, ""), (0, "")]


def test_counts_of_all_to_all_v_that_differ(worker: Worker) -> None:
    outcomes = worker.call(all_to_all_v, [[1, 2], [3, 4]], [[1, 3], [5, 4]])
    for code, text in outcomes:
        assert code == 507018
        assert "rank 0 gives 8 bytes for rank 1, which expects 20" in text


def all_gather_v(counts: list[list[int]]) -> list[tuple[int, str]]:
    members = ranks()
    for rank, member in enumerate(members):
        communicator = member.use()
        code = cann.hccl().HcclAllGatherV(
            member.buffer, U64(counts[rank][rank]), member.buffer, row(*counts[rank]), row(0, 64), FLOAT,
            communicator, member.stream,
        )  # fmt: skip
        assert code == 0
    return [outcome(member) for member in members]


def test_counts_of_all_gather_v(worker: Worker) -> None:
    assert worker.call(all_gather_v, [[2, 9], [2, 9]]) == [(0, ""), (0, "")]


def test_counts_of_all_gather_v_that_differ(worker: Worker) -> None:
    for code, text in worker.call(all_gather_v, [[2, 9], [3, 9]]):
        assert code == 507018
        assert "disagree in HcclAllGatherV" in text


def what_is_no_buffer() -> dict[str, int]:
    member = ranks()[0]
    communicator = member.use()
    host = ctypes.create_string_buffer(4096)
    inside = ctypes.c_void_p(member.buffer.value + 4096 - 4 * COUNT + 4)
    library, stream, buffer = cann.hccl(), member.stream, member.buffer
    half, far = row(COUNT, COUNT), row(0, 1 << 20)

    def all_reduce(source: Any, target: Any, count: int = COUNT) -> int:
        return int(library.HcclAllReduce(source, target, U64(count), FLOAT, SUM, communicator, stream))

    return {
        "null": all_reduce(None, buffer),
        "host memory to send": all_reduce(host, buffer),
        "host memory to receive": all_reduce(buffer, host),
        "over the end": all_reduce(buffer, inside),
        "size that wraps": all_reduce(buffer, buffer, 1 << 62),
        "gather over the end": library.HcclAllGather(buffer, inside, U64(COUNT), FLOAT, communicator, stream),
        "scatter over the end": library.HcclReduceScatter(inside, buffer, U64(COUNT), FLOAT, SUM, communicator, stream),
        "parts beyond": library.HcclAlltoAllV(
            buffer, half, far, FLOAT, buffer, half, row(0, COUNT), FLOAT, communicator, stream
        ),
        "message of the host": library.HcclSend(host, U64(COUNT), FLOAT, 1, communicator, stream),
        "no variable": library.HcclGetRankSize(communicator, None),
        "no communicator": library.HcclGetRankSize(ctypes.c_void_p(0x1234), ctypes.byref(ctypes.c_uint32())),
    }


def test_what_is_no_buffer_is_refused(worker: Worker) -> None:
    codes = worker.call(what_is_no_buffer)
    assert codes.pop("null") == codes.pop("no variable") == POINTER
    assert set(codes.values()) == {PARAMETER}


def group_over_many(communicators: int) -> list[tuple[int, str]]:
    """A group that talks over several communicators, in the same order on both ranks."""
    members = ranks(communicators)
    library = cann.hccl()
    for rank, member in enumerate(members):
        member.use()
        assert library.HcclGroupStart() == 0
        for communicator in member.communicators:
            call = library.HcclSend if rank == 0 else library.HcclRecv
            assert call(member.buffer, U64(COUNT), FLOAT, 1 - rank, communicator, member.stream) == 0
        assert library.HcclGroupEnd() == 0
    return [outcome(member) for member in members]


def test_groups_are_worked_off_in_the_order_of_the_program(worker: Worker) -> None:
    assert worker.call(group_over_many, 8) == [(0, ""), (0, "")]


def group_on_two_streams() -> list[tuple[int, str]]:
    """Rank 0 sends first and rank 1 too, each on one stream and receives on another: one batch on the first."""
    members = ranks()
    library = cann.hccl()
    for rank, member in enumerate(members):
        communicator = member.use()
        assert library.HcclGroupStart() == 0
        for call, stream in ((library.HcclSend, member.stream), (library.HcclRecv, cann.stream())):
            assert call(member.buffer, U64(COUNT), FLOAT, 1 - rank, communicator, stream) == 0
        assert library.HcclGroupEnd() == 0
    return [outcome(member) for member in members]


def test_a_group_of_messages_is_one_batch_on_its_first_stream(worker: Worker) -> None:
    assert worker.call(group_on_two_streams) == [(0, ""), (0, "")]


def collectives_of_a_group() -> tuple[list[bytes], list[bytes]]:
    """A buffer of each rank before and after the end of the group that sums it; the end waits for the sum."""
    members = ranks()
    library = cann.hccl()
    before, after = [b""] * RANKS, [b""] * RANKS

    def work(rank: int) -> None:
        member = members[rank]
        communicator, buffer, stream = member.use(), member.buffer, member.stream
        cann.fill(buffer, 0x40, 4, stream)
        library.HcclGroupStart()
        library.HcclAllReduce(buffer, buffer, U64(1), FLOAT, SUM, communicator, stream)
        cann.synchronize(stream)
        before[rank] = cann.read(buffer, 4)
        library.HcclGroupEnd()
        after[rank] = cann.read(buffer, 4)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(RANKS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return before, after


def test_collectives_of_a_group_wait_for_its_end(worker: Worker) -> None:
    three = struct.unpack("f", b"\x40" * 4)[0]
    before, after = worker.call(collectives_of_a_group)
    assert before == [b"\x40" * 4] * 2
    assert [struct.unpack("f", each)[0] for each in after] == [2 * three] * 2


def against_the_rules_of_groups() -> dict[str, int]:
    member = ranks()[0]
    communicator = member.use()
    library, buffer, stream = cann.hccl(), member.buffer, member.stream

    def reduce() -> int:
        return int(library.HcclAllReduce(buffer, buffer, U64(COUNT), FLOAT, SUM, communicator, stream))

    def send() -> int:
        return int(library.HcclSend(buffer, U64(COUNT), FLOAT, 1, communicator, stream))

    codes = {"end without a start": library.HcclGroupEnd()}

    def within() -> None:  # a thread of its own: the group is left open
        cann.set_device(member.device)
        library.HcclGroupStart()
        codes["the first message"] = send()
        codes["a collective after a message"] = reduce()
        codes["a batch in a group"] = library.HcclBatchSendRecv(buffer, ctypes.c_uint32(1), communicator, stream)

    thread = threading.Thread(target=within)
    thread.start()
    thread.join()
    return codes


def test_the_rules_of_groups(worker: Worker) -> None:
    codes = worker.call(against_the_rules_of_groups)
    assert codes.pop("the first message") == 0
    assert set(codes.values()) == {NOT_SUPPORTED}


def start_of_a_group() -> int:
    return int(cann.hccl().HcclGroupStart())


@pytest.mark.parametrize("chip", ["310P3", "950PR"])
def test_chips_without_groups(emulated: Callable[..., Machine], chip: str) -> None:
    worker = Worker(emulated(chip=chip).environment)
    try:
        assert worker.call(start_of_a_group) == NOT_SUPPORTED
    finally:
        worker.close()


def messages_of_two_streams(messages: int) -> list[int]:
    """Each rank talks to the other from two streams at once, over one communicator."""
    members = ranks()
    library = cann.hccl()
    streams = []
    for rank, member in enumerate(members):
        communicator = member.use()
        for stream in (member.stream, cann.stream()):
            streams.append((member.device, stream))
            for _ in range(messages):
                call = library.HcclSend if rank == 0 else library.HcclRecv
                assert call(member.buffer, U64(COUNT), FLOAT, 1 - rank, communicator, stream) == 0
    codes = []
    for device, stream in streams:
        cann.set_device(device)
        codes.append(answer("aclrtSynchronizeStream", stream))
    return codes


def test_two_streams_may_talk_to_one_peer(worker: Worker) -> None:
    assert worker.call(messages_of_two_streams, 800) == [0, 0, 0, 0]


def both_directions_of_two_streams(messages: int) -> list[int]:
    """One stream of each rank sends and another receives: neither may hold up the other's."""
    members = ranks()
    library = cann.hccl()
    streams = []
    for rank, member in enumerate(members):
        communicator = member.use()
        for call, stream in ((library.HcclSend, member.stream), (library.HcclRecv, cann.stream())):
            streams.append((member.device, stream))
            for _ in range(messages):
                assert call(member.buffer, U64(COUNT), FLOAT, 1 - rank, communicator, stream) == 0
    codes = []
    for device, stream in streams:
        cann.set_device(device)
        codes.append(answer("aclrtSynchronizeStream", stream))
    return codes


def test_the_directions_are_independent(worker: Worker) -> None:
    assert worker.call(both_directions_of_two_streams, 100) == [0, 0, 0, 0]


def join(sizes: list[int], before: Callable[[bytes], Any] = lambda _: None) -> list[int]:
    """What HcclCommInitRootInfo answers to rank r of sizes[r]; `before` gets the root info first."""
    info = ctypes.create_string_buffer(ROOT_INFO_BYTES)
    assert cann.hccl().HcclGetRootInfo(info) == 0
    keep = before(info.raw)
    codes = [HANGS] * len(sizes)

    def work(rank: int) -> None:
        cann.set_device(rank)
        handle = ctypes.c_void_p()
        size = ctypes.c_uint32(sizes[rank])
        codes[rank] = cann.hccl().HcclCommInitRootInfo(size, info, ctypes.c_uint32(rank), ctypes.byref(handle))

    threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in range(len(sizes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    del keep
    return codes


@pytest.mark.parametrize("sizes", [[2, 4], [4, 2], [3, 2]])
def test_ranks_that_expect_different_numbers(worker: Worker, sizes: list[int]) -> None:
    assert worker.call(join, sizes) == [PARAMETER, PARAMETER]


def test_ranks_that_agree(worker: Worker) -> None:
    assert worker.call(join, [2, 2]) == [0, 0]


def join_beside_a_silent_caller() -> list[int]:
    """Somebody connects first and says nothing."""

    def call(root_info: bytes) -> socket.socket:
        name = root_info[16 : 16 + 96].rstrip(b"\0")
        silent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        silent.connect(b"\0" + name)
        return silent

    return join([2, 2], call)


def test_a_silent_caller_holds_up_nobody(worker: Worker) -> None:
    assert worker.call(join_beside_a_silent_caller) == [0, 0]


def wait_in_all_reduce(rank: Rank) -> None:
    """The rank's stream has come to an all-reduce, in which it waits for the other rank."""
    communicator = rank.use()
    reached = threading.Event()
    kept.append(cann.host_function(rank.stream, reached.set))
    code = cann.hccl().HcclAllReduce(rank.buffer, rank.buffer, U64(COUNT), FLOAT, SUM, communicator, rank.stream)
    assert code == 0
    reached.wait()
    time.sleep(1)  # for the stream's thread to go from the one to the other, which nothing shows


def lose_a_waiting_rank() -> tuple[int, tuple[int, str]]:
    """Rank 0 waits in an all-reduce when its chip is lost; rank 1 comes to it afterwards."""
    first, second = ranks()
    wait_in_all_reduce(first)
    lose_the_chip()
    code = answer("aclrtSynchronizeStream", first.stream)
    communicator = second.use()
    late = cann.hccl().HcclAllReduce(second.buffer, second.buffer, U64(COUNT), FLOAT, SUM, communicator, second.stream)
    assert late == 0
    return code, outcome(second)


def test_a_lost_chip_ends_a_collective_on_both_sides(worker: Worker) -> None:
    own, (code, text) = worker.call(lose_a_waiting_rank)
    assert own == LOST
    assert code not in (0, HANGS)
    assert "rank 0" in text


def destroy_a_waiting_stream() -> tuple[int, int, tuple[int, str]]:
    """By force, on a chip that is well and stays so."""
    first, second = ranks()
    wait_in_all_reduce(first)
    destroyed = answer("aclrtDestroyStreamForce", first.stream)
    well = code_of("aclrtSynchronizeDevice")
    communicator = second.use()
    assert (
        cann.hccl().HcclAllReduce(second.buffer, second.buffer, U64(COUNT), FLOAT, SUM, communicator, second.stream)
        == 0
    )
    return destroyed, well, outcome(second)


def test_a_destroyed_stream_leaves_its_collective(worker: Worker) -> None:
    destroyed, well, (code, _) = worker.call(destroy_a_waiting_stream)
    assert (destroyed, well) == (0, 0)
    assert code not in (0, HANGS)


def all_reduce_on_both() -> list[tuple[int, str]]:
    members = ranks()
    for member in members:
        communicator = member.use()
        code = cann.hccl().HcclAllReduce(
            member.buffer, member.buffer, U64(COUNT), FLOAT, SUM, communicator, member.stream
        )
        assert code == 0
    return [outcome(members[0])]


def test_a_stalled_rank_is_named_when_time_is_up(tmp_path: Path) -> None:
    fault = {"kind": "collective_stall", "nth": 1, "chip": 1, "seconds": 3600}
    with process(tmp_path, fault, count=RANKS, HCCL_EXEC_TIMEOUT="1") as worker:
        [(code, text)] = worker.call(all_reduce_on_both)
    assert code not in (0, HANGS)
    assert "waited for rank 1 longer than HCCL_EXEC_TIMEOUT" in text
