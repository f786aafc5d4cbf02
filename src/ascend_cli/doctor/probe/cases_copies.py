"""Copies within the device and from the host: lengths inside and at the end of blocks of 32 bytes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from ascend_cli.doctor.probe.bench import Bench
from ascend_cli.doctor.probe.case import Case
from ascend_facts.chips import ChipSpec

LENGTHS = (1, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 112, 113)
OFFSETS = (0, 1, 3, 8)


def copies(chip: ChipSpec) -> Iterator[Case]:
    for dtype in (torch.int32, torch.int64, torch.float16):
        name = str(dtype).removeprefix("torch.")
        for length in LENGTHS:
            yield Case(f"copy_ {name}, {length} elements", partial(copy_part, length, dtype), "ragged_copy")
    yield Case("copy_ int32, rows of a table", copy_rectangle, "ragged_copy")
    yield Case("copy_ float16, state pages", copy_pages)
    for source, target in (("int64", "int32"), ("float16", "float32"), ("float32", "float16"), ("bool", "float16")):
        yield Case(f"copy_ {source} to {target}", partial(copy_casting, source, target))
    yield Case("copy_ from the host, int32", upload)
    yield Case("zero_ and fill_", fill)
    yield Case("format cast to FRACTAL_NZ and back", there_and_back)


def copy_part(length: int, dtype: torch.dtype, bench: Bench) -> None:
    """buffer[o : o + n].copy_(source[:n])."""
    source = torch.arange(1, 257).to(dtype)
    for offset in OFFSETS:
        expected = torch.full((512,), -1).to(dtype)
        buffer = bench.inside(expected)
        expected[offset : offset + length] = source[:length]
        buffer[offset : offset + length].copy_(bench.put(source)[:length])
        bench.same(buffer, expected)


def copy_rectangle(bench: Bench) -> None:
    source = bench.randint(0, 1000, (9, 40))
    expected = torch.full((16, 40), -1, dtype=torch.int32)
    table = bench.inside(expected)
    expected[:9, :13] = source[:, :13]
    table[:9, :13].copy_(bench.put(source)[:, :13])
    bench.same(table, expected)
    expected[9].copy_(source[0])
    table[9].copy_(bench.put(source)[0])
    bench.same(table, expected)


def copy_pages(bench: Bench) -> None:
    """Whole contiguous pages, as states move from block to block."""
    pages = bench.randn(6, 1024, dtype=torch.float16)
    held = bench.inside(pages)
    held[4].copy_(held[1])
    pages[4] = pages[1]
    bench.same(held, pages)


def copy_casting(source: str, target: str, bench: Bench) -> None:
    values = bench.randint(0, 2, (113,)) if source == "bool" else bench.randint(-900, 900, (113,))
    values = values.to(getattr(torch, source))
    expected = torch.full((120,), 5).to(getattr(torch, target))
    buffer = bench.inside(expected)
    buffer[:113].copy_(bench.put(values))
    expected[:113] = values.to(expected.dtype)
    bench.same(buffer, expected)


def upload(bench: Bench) -> None:
    for length in (1, 9, 113):
        source = bench.randint(0, 1000, (length,)).pin_memory()
        expected = torch.full((128,), -1, dtype=torch.int32)
        buffer = bench.inside(expected)
        buffer[:length].copy_(source, non_blocking=True)
        expected[:length] = source
        bench.same(buffer, expected)


def fill(bench: Bench) -> None:
    for dtype in (torch.float16, torch.float32, torch.int32, torch.int64):
        for length in (1, 17, 113):
            expected = torch.full((120,), 3).to(dtype)
            buffer = bench.inside(expected)
            buffer[:length].zero_()
            buffer[length:].fill_(7)
            expected[:length], expected[length:] = 0, 7
            bench.same(buffer, expected)


def there_and_back(bench: Bench) -> None:
    import torch_npu

    for shape in ((64, 48), (17, 33), (3, 32, 64)):
        values = bench.randn(*shape, dtype=torch.float16)
        nz = torch_npu.npu_format_cast(bench.put(values), 29)
        bench.same(torch_npu.npu_format_cast(nz, 2), values)
