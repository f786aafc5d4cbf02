"""Rows and places by index, sorting, and what sampling does over a vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from ascend_cli.doctor.probe.bench import Bench
from ascend_cli.doctor.probe.case import Case
from ascend_cli.doctor.probe.cases_elements import compare_times
from ascend_facts.chips import ChipSpec

VOCABULARY = 151936
WIDE, NARROW = 60_000, 40_000  # columns on both sides of what a scatter on the AI cores may take


def indexing(chip: ChipSpec) -> Iterator[Case]:
    kinds = sorted({"int32", "int64", "float16", "float32", chip.preferred_dtype})
    for kind in kinds:
        yield Case(f"index_select of rows, {kind}", partial(select_rows, kind))
    for kind in ("int32", "int64"):
        yield Case(f"index_copy_, one dimension, {kind}", partial(copy_places, kind))
    for kind in ("int32", "float16"):
        yield Case(f"index_copy_ of rows, {kind}", partial(copy_rows, kind), "row_index_copy")
        yield Case(f"rows assigned by index, {kind}", partial(assign_rows, kind))
    yield Case("gather of one column of each row, a vocabulary", gather)
    yield Case("scatter_ of places, one dimension, int32", scatter_places)
    yield Case("scatter_ over 60,000 columns: time", wide_scatter, "wide_scatter")
    yield Case("sort float32, a vocabulary", sort)
    yield Case("topk float32, a vocabulary", topk)
    yield Case("argmax, a vocabulary", argmax)
    yield Case("softmax, cumsum and comparison over a vocabulary", nucleus)
    yield Case("masked_fill_ of columns of a view", fill_columns)
    yield Case("index_select of noise and Gumbel draw", draw)


def _values(bench: Bench, kind: str, *shape: int) -> torch.Tensor:
    dtype = getattr(torch, kind)
    return bench.randn(*shape, dtype=dtype) if dtype.is_floating_point else bench.randint(-999, 999, shape).to(dtype)


def select_rows(kind: str, bench: Bench) -> None:
    table = _values(bench, kind, 40, 96)
    for dtype in (torch.int32, torch.int64):
        for count in (1, 9, 33):
            places = bench.randint(0, 40, (count,)).to(dtype)
            there = bench.put(table), bench.put(places)
            found = bench.launched(lambda there=there: there[0].index_select(0, there[1]))
            bench.same(found, table.index_select(0, places))


def copy_places(kind: str, bench: Bench) -> None:
    values = _values(bench, kind, 128)
    for count in (1, 9, 33):
        places, new = torch.randperm(128)[:count], _values(bench, kind, count)
        there = bench.inside(values)
        there.index_copy_(0, bench.put(places), bench.put(new))
        bench.same(there, values.index_copy(0, places, new))


def copy_rows(kind: str, bench: Bench) -> None:
    rows, places, new = _values(bench, kind, 16, 64), torch.tensor([3, 1, 9]), _values(bench, kind, 3, 64)
    there = bench.inside(rows)
    there.index_copy_(0, bench.put(places), bench.put(new))
    bench.same(there, rows.index_copy(0, places, new))


def assign_rows(kind: str, bench: Bench) -> None:
    rows, places, new = _values(bench, kind, 16, 64), torch.tensor([3, 1, 9]), _values(bench, kind, 3, 64)
    there = bench.inside(rows)
    there[bench.put(places)] = bench.put(new)
    rows[places] = new
    bench.same(there, rows)
    there[bench.put(places)] = 0
    rows[places] = 0
    bench.same(there, rows)


def gather(bench: Bench) -> None:
    logits, places = bench.randn(4, VOCABULARY, dtype=torch.float32), bench.randint(0, VOCABULARY, (4, 1), torch.int64)
    bench.same(bench.put(logits).gather(1, bench.put(places)), logits.gather(1, places))


def scatter_places(bench: Bench) -> None:
    values, places, new = bench.randint(0, 999, (128,)), torch.randperm(128)[:9], bench.randint(0, 999, (9,))
    there = bench.inside(values)
    there.scatter_(0, bench.put(places), bench.put(new))
    bench.same(there, values.scatter(0, places, new))


def _scatter(bench: Bench, columns: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    order = torch.stack([torch.randperm(columns, generator=torch.Generator().manual_seed(row)) for row in range(4)])
    return torch.zeros(4, columns), order, bench.randn(4, columns, dtype=torch.float32)


def wide_scatter(bench: Bench) -> None:
    """As many indices as columns; the plugin launches none, because an AI CPU may do it."""
    target, order, values = _scatter(bench, WIDE)
    there = [bench.put(value) for value in (target, order, values)]
    there[0].scatter_(1, there[1], there[2])
    bench.same(there[0], target.scatter(1, order, values))
    narrow = [bench.put(value) for value in _scatter(bench, NARROW)]
    compare_times(
        bench, lambda: there[0].scatter_(1, there[1], there[2]), lambda: narrow[0].scatter_(1, narrow[1], narrow[2])
    )


def sort(bench: Bench) -> None:
    logits = bench.randn(2, VOCABULARY, dtype=torch.float32)
    bench.same(bench.put(logits).sort(dim=-1).values, logits.sort(dim=-1).values)


def topk(bench: Bench) -> None:
    logits = bench.randn(4, VOCABULARY, dtype=torch.float32)
    found, places = bench.put(logits).topk(20, dim=-1)
    bench.same(found, logits.topk(20, dim=-1).values)
    bench.same(logits.gather(1, places.cpu()), found.cpu())


def argmax(bench: Bench) -> None:
    for dtype in {torch.float32, bench.half}:
        logits = bench.randn(5, VOCABULARY, dtype=torch.float32).to(dtype)
        places = bench.put(logits).argmax(dim=-1).cpu()
        bench.same(logits.gather(1, places.unsqueeze(1)).squeeze(1), logits.amax(-1))
        bench.same(bench.put(logits).argmax(dim=-1).to(torch.int32), places.to(torch.int32))


def nucleus(bench: Bench) -> None:
    logits = bench.randn(2, VOCABULARY, dtype=torch.float32)
    there = bench.put(logits).softmax(dim=-1).cumsum(dim=-1)
    bench.close(there, logits.double().softmax(-1).cumsum(-1), 1e-4)
    bench.same(there <= 0.25, there.cpu() <= 0.25)


def fill_columns(bench: Bench) -> None:
    logits, hidden = bench.randn(3, 160, dtype=torch.float32), bench.randint(0, 2, (3, 128)).bool()
    there = bench.inside(logits)
    there[:, :128].masked_fill_(bench.put(hidden), -1e4)
    logits[:, :128].masked_fill_(hidden, -1e4)
    bench.same(there, logits)


def draw(bench: Bench) -> None:
    table, rows = bench.randn(512, 64, dtype=torch.float32), bench.randint(0, 512, (2 * 20,))
    logits = bench.randn(2, 1271, dtype=torch.float32)
    noise = bench.put(table).index_select(0, bench.put(rows)).view(2, 20 * 64)[:, :1271]
    expected = (logits + table.index_select(0, rows).view(2, -1)[:, :1271]).argmax(-1)
    bench.same((bench.put(logits) + noise).argmax(dim=-1), expected)
