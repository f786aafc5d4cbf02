"""Matrix products: linear layers in the chip's layout, heads, batches, float32 results."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from ascend_cli.doctor.probe.bench import Bench
from ascend_cli.doctor.probe.case import Case, WrongResult
from ascend_facts.chips import ChipSpec

ND, NZ = 2, 29
ROWS = (1, 2, 16, 17)
# [in, out] of linear layers: Qwen3-0.6B on 1, 2 and 4 chips, 8B and 32B on 4.
WIDTHS = ((1024, 4096), (2048, 1024), (1024, 6144), (1024, 1024), (768, 1024), (4096, 1536), (5120, 2560), (6400, 5120))
HEAD = 151936  # of Qwen's vocabulary
LOOKED_AT = 256  # columns of a wide product that are compared


def products(chip: ChipSpec) -> Iterator[Case]:
    layout = NZ if chip.weight_format == "nz" else ND
    name = "FRACTAL_NZ" if layout == NZ else "ND"
    for width in WIDTHS:
        yield Case(f"linear {width[0]} to {width[1]}, {name}", partial(linear, width, layout, ROWS))
    yield Case(f"linear 1024 to 3072, {name}, 512 rows", partial(linear, (1024, 3072), layout, (512,)))
    if layout == NZ:
        yield Case("linear 1024 to 1024, ND", partial(linear, (1024, 1024), ND, ROWS))
    yield Case(f"linear with a bias, {name}", partial(linear_with_bias, layout))
    yield Case(f"head of {HEAD} columns, {name}", partial(head, layout))
    yield Case("equal rows of a product", partial(equal_rows, layout), "nz_row_order")
    yield Case("mm with a float32 result, ND", partial(float32_result, ND), may_be_refused=True)
    if layout == NZ:
        yield Case("mm with a float32 result, FRACTAL_NZ", partial(float32_result, NZ), "nz_float32_result")
    for kind in ("float32", chip.preferred_dtype):
        yield Case(f"matmul {kind}, batches", partial(batches, getattr(torch, kind)))
    yield Case("products of single rows", row_products)
    yield Case("sums of products on the vector units", vector_products)


def _weight(bench: Bench, width: tuple[int, int], layout: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[out, in] on the host and on the device."""
    import torch_npu

    held = bench.randint(-128, 128, (width[1], width[0]), torch.int8).to(bench.half) / 1024
    there = bench.put(held)
    return held, torch_npu.npu_format_cast(there, NZ) if layout == NZ else there


def linear(width: tuple[int, int], layout: int, rows: tuple[int, ...], bench: Bench) -> None:
    weight, there = _weight(bench, width, layout)
    step = max(1, width[1] // LOOKED_AT)
    exact = weight[::step].double().t()
    for count in rows:
        x = bench.randn(count, width[0])
        moved = bench.put(x)
        found = bench.launched(lambda moved=moved: torch.nn.functional.linear(moved, there))
        bench.close(found[:, ::step], x.double() @ exact)


def linear_with_bias(layout: int, bench: Bench) -> None:
    weight, there = _weight(bench, (896, 1152), layout)
    bias = bench.randn(1152)
    for count in ROWS:
        x = bench.randn(count, 896)
        found = torch.nn.functional.linear(bench.put(x), there, bench.put(bias))
        bench.close(found, x.double() @ weight.double().t() + bias.double())


def head(layout: int, bench: Bench) -> None:
    """The output matrix, and the device memory that its product takes beside input and output."""
    hidden, rows = 256, 8
    weight, there = _weight(bench, (hidden, HEAD), layout)
    x = bench.randn(rows, hidden)
    moved = bench.put(x)
    torch.npu.synchronize()
    torch.npu.reset_peak_memory_stats()
    before = torch.npu.memory_allocated()
    found = torch.nn.functional.linear(moved, there)
    torch.npu.synchronize()
    extra = torch.npu.max_memory_allocated() - before - found.nbytes
    bench.facts["head_workspace_mib"] = round(max(0, extra) / 2**20, 2)
    step = HEAD // LOOKED_AT
    bench.close(found[:, ::step], x.double() @ weight[::step].double().t())


def equal_rows(layout: int, bench: Bench) -> None:
    """Equal rows give equal results only where the order of summation does not depend on the row."""
    _, there = _weight(bench, (1024, 2048), layout)
    x = bench.randn(1, 1024).expand(4, 1024).contiguous()
    found = torch.nn.functional.linear(bench.put(x), there).cpu()
    differing = int((found != found[0]).sum())
    bench.facts["row_dependent_products"] = differing > 0
    bench.close(found, found[0].double().expand_as(found))
    if differing:
        raise WrongResult(f"{differing} of {found.numel()} results differ in rounding between equal rows")


def float32_result(layout: int, bench: Bench) -> None:
    weight, there = _weight(bench, (256, 512), layout)
    x = bench.randn(5, 256)
    found = torch.mm(bench.put(x), there.t(), out_dtype=torch.float32)
    bench.close(found, x.double() @ weight.double().t(), 1e-5)


def batches(dtype: torch.dtype, bench: Bench) -> None:
    a, b = bench.randn(3, 2, 64, 64, dtype=dtype), bench.randn(3, 2, 64, 64, dtype=dtype)
    rounded = dtype == torch.float32 and bench.chip.rounds_float32_products
    there = bench.put(a), bench.put(b)
    found = bench.launched(lambda: torch.matmul(*there))
    exact = a.double() @ b.double()
    bench.close(found, exact, 4e-3 if rounded else None)
    turned = torch.matmul(there[0], there[1].transpose(-1, -2))
    bench.close(turned, a.double() @ b.double().transpose(-1, -2), 4e-3 if rounded else None)


def row_products(bench: Bench) -> None:
    """[T, 1, k] x [T, k, H], as experts' outputs are weighed on the cube."""
    weights, outputs = bench.randn(9, 1, 8), bench.randn(9, 8, 256)
    there = bench.put(weights), bench.put(outputs)
    bench.close(torch.matmul(*there), weights.double() @ outputs.double())
    cube = bench.timed(lambda: torch.matmul(*there))
    vector = bench.timed(lambda: (there[1] * there[0].transpose(1, 2)).sum(dim=1))
    bench.facts["row_products_us"] = {"cube": round(cube, 2), "vector": round(vector, 2)}


def vector_products(bench: Bench) -> None:
    weights, outputs = bench.randn(9, 8), bench.randn(9, 8, 256)
    found = (bench.put(outputs) * bench.put(weights).unsqueeze(-1)).sum(dim=1)
    bench.close(found, (outputs.double() * weights.double().unsqueeze(-1)).sum(1))
