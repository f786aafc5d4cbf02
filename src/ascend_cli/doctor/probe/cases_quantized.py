"""Products of quantized weights: int8 by tensor and by token, weights alone, experts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from ascend_cli.doctor.probe.bench import Bench
from ascend_cli.doctor.probe.case import Case, WrongResult
from ascend_facts.chips import ChipSpec

NZ = 29
WIDTHS = ((128, 96), (1024, 2048))  # [in, out]


def quantized(chip: ChipSpec) -> Iterator[Case]:
    kinds = sorted({"float16", chip.preferred_dtype})
    for kind in kinds:
        yield Case(f"npu_quantize {kind} by constants", partial(quantize, kind, True))
        yield Case(f"npu_quantize {kind} without offset", partial(quantize, kind, False))
    yield Case("npu_dynamic_quant", dynamic_quantize)
    for width in WIDTHS:
        size = f"{width[0]} to {width[1]}"
        for kind in kinds:
            dynamic = partial(dynamic_product, kind, width)
            yield Case(f"npu_quant_matmul, static, {size}, {kind}", partial(static_product, kind, width))
            yield Case(f"npu_quant_matmul, tokens scaled behind it, {size}, {kind}", partial(dynamic, False, 1.0))
            yield Case(f"npu_quant_matmul, a scale for each token, {size}, {kind}", partial(dynamic, True, 1.0))
    outliers = partial(dynamic_product, "float16", WIDTHS[0], True, 2e4)
    yield Case("npu_quant_matmul, a scale for each token, outliers", outliers)
    for groups in (1, 4):
        yield Case(f"npu_weight_quant_batchmatmul, {groups} groups", partial(weight_only, groups))
    yield Case("npu_weight_quant_batchmatmul: time", weight_only_time, "weight_quant_layout")
    if chip.weight_format == "nz":
        yield Case("npu_quant_grouped_matmul_dequant", grouped_dequant)
    else:
        yield Case("npu_grouped_matmul int8", grouped_int8)


def _stored(bench: Bench, weight: torch.Tensor) -> torch.Tensor:
    """A [out, in] int8 weight as the plugin holds it, transposed."""
    import torch_npu

    there = bench.put(weight)
    return (torch_npu.npu_format_cast(there, NZ) if bench.chip.weight_format == "nz" else there).t()


def quantize(kind: str, with_offset: bool, bench: Bench) -> None:
    import torch_npu

    dtype = getattr(torch, kind)
    x = bench.randn(6, 128, dtype=dtype)
    factor, offset = torch.full((128,), 20.0).to(dtype), torch.full((128,), 3.0).to(dtype)
    there = bench.put(offset) if with_offset else None
    found = torch_npu.npu_quantize(bench.put(x), bench.put(factor), there, torch.qint8, -1, False)
    exact = (x.double() * 20 + (3 if with_offset else 0)).round().clamp(-128, 127)
    _near(bench, found, exact)


def _near(bench: Bench, found: torch.Tensor, exact: torch.Tensor) -> None:
    """Within one step: where the product lies between two integers, either is right."""
    difference = float((found.cpu().double() - exact).abs().max())
    bench.error = difference / 127
    if difference > 1:
        raise WrongResult(f"off by {difference:.0f} steps")


def dynamic_quantize(bench: Bench) -> None:
    import torch_npu

    x = bench.randn(6, 128, dtype=torch.float16)
    found, scale = torch_npu.npu_dynamic_quant(bench.put(x))
    exact = x.double().abs().amax(1) / 127
    bench.close(scale, exact, 1e-3)
    _near(bench, found, x.double() / exact.unsqueeze(1))


def _weight(bench: Bench, width: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    weight = bench.randint(-127, 128, (width[1], width[0]), torch.int8)
    return weight, bench.randint(1, 100, (width[1],)).float() * 1e-4  # sums stay within float16, outliers included


def _scale(bench: Bench, scale: torch.Tensor, kind: str) -> torch.Tensor:
    """As products of that type take it: float16 ones in 64 bits, bfloat16 ones as it is."""
    import torch_npu

    there = bench.put(scale)
    return torch_npu.npu_trans_quant_param(there, round_mode=1) if kind == "float16" else there


def static_product(kind: str, width: tuple[int, int], bench: Bench) -> None:
    import torch_npu

    dtype = getattr(torch, kind)

    weight, scale = _weight(bench, width)
    held = _stored(bench, weight)
    for rows in (1, 7, 33):
        x = bench.randint(-127, 128, (rows, width[0]), torch.int8)
        there = _scale(bench, scale, kind)
        found = torch_npu.npu_quant_matmul(bench.put(x), held, there, output_dtype=dtype)
        exact = (x.double() @ weight.double().t()) * scale.double()
        bench.close(found, exact.clamp(-65504, 65504))
        bias = bench.randint(-999, 999, (width[1],))
        found = torch_npu.npu_quant_matmul(bench.put(x), held, there, bias=bench.put(bias), output_dtype=dtype)
        exact = (x.double() @ weight.double().t() + bias.double()) * scale.double()
        bench.close(found, exact.clamp(-65504, 65504))


def dynamic_product(kind: str, width: tuple[int, int], in_product: bool, outlier: float, bench: Bench) -> None:
    import torch_npu

    dtype = getattr(torch, kind)
    weight, scale = _weight(bench, width)
    x = bench.randn(6, width[0], dtype=torch.float32) * torch.tensor([1e-3, 0.1, 1.0, 30.0, 100.0, 1.0])[:, None]
    x[5, 3] = outlier
    x = x.to(dtype)
    by_token = x.double().abs().amax(1, keepdim=True) / 127
    exact = (x.double() / by_token).round() @ weight.double().t() * scale.double() * by_token
    there, tokens = torch_npu.npu_dynamic_quant(bench.put(x))
    held = _stored(bench, weight)
    if in_product:
        found = torch_npu.npu_quant_matmul(there, held, bench.put(scale), pertoken_scale=tokens, output_dtype=dtype)
    else:
        small = _scale(bench, scale / 128, kind)
        found = torch_npu.npu_quant_matmul(there, held, small, output_dtype=dtype)
        found = found.mul_((tokens * 128).to(dtype).unsqueeze(-1))
    exact = exact.clamp(-65504, 65504)
    by_row = (found.cpu().double() - exact).abs().amax(1) / exact.abs().amax(1)
    bench.error = float(by_row.max())
    bound = 8e-3 if kind == "float16" else 3e-2
    if not bench.error < bound:
        raise WrongResult(f"relative error {bench.error:.1e} of a row where {bound:.0e} is allowed")


def _weight_only(bench: Bench, width: tuple[int, int], groups: int) -> tuple[torch.Tensor, ...]:
    """Four-bit weights [in, out], scales and offsets [groups, out]; the weights as the chip takes them."""
    from_zero = bench.randint(-8, 8, width, torch.int8)
    scales = (bench.randn(groups, width[1], dtype=torch.float32).abs() * 0.1 + 0.01).to(bench.half)
    offsets = bench.randint(-3, 4, (groups, width[1])).to(bench.half)
    held = from_zero
    if "int4" in bench.chip.weight_only_dtypes:
        nibbles = (from_zero.to(torch.int32) & 0xF).unflatten(-1, (-1, 8))
        held = torch.zeros(nibbles.shape[:-1], dtype=torch.int32)
        for index in range(8):
            held |= nibbles[..., index] << (4 * index)
    return from_zero, scales, offsets, bench.put(held.contiguous())


def weight_only(groups: int, bench: Bench) -> None:
    import torch_npu

    width = (256, 512)
    weight, scales, offsets, held = _weight_only(bench, width, groups)
    shape = (-1,) if groups == 1 else scales.shape
    for rows in (1, 9):
        x = bench.randn(rows, width[0])
        found = torch_npu.npu_weight_quant_batchmatmul(
            bench.put(x), held, bench.put(scales.reshape(shape)), bench.put(offsets.reshape(shape)),
            antiquant_group_size=width[0] // groups if groups > 1 else 0,
        )  # fmt: skip
        spread = [part.double().repeat_interleave(width[0] // groups, 0) for part in (scales, offsets)]
        bench.close(found, x.double() @ ((weight.double() + spread[1]) * spread[0]), 2e-2)
        found = torch_npu.npu_weight_quant_batchmatmul(
            bench.put(x), held, bench.put(scales.reshape(shape)), None,
            antiquant_group_size=width[0] // groups if groups > 1 else 0,
        )  # fmt: skip
        bench.close(found, x.double() @ (weight.double() * spread[0]), 2e-2)


def weight_only_time(bench: Bench) -> None:
    """Weights of a byte should be faster than those of two; laid out anew in every call they are slower."""
    import torch_npu

    width = (2048, 4096)
    _, scales, offsets, held = _weight_only(bench, width, 1)
    x = bench.put(bench.randn(1, width[0]))
    there = [bench.put(part.reshape(-1)) for part in (scales, offsets)]
    found = bench.timed(lambda: torch_npu.npu_weight_quant_batchmatmul(x, held, *there, antiquant_group_size=0))
    plain = bench.put(torch.ones(width[1], width[0], dtype=bench.half))
    if bench.chip.weight_format == "nz":
        plain = torch_npu.npu_format_cast(plain, NZ)
    usual = bench.timed(lambda: torch.nn.functional.linear(x, plain))
    bench.facts["weight_only_us"] = round(found, 2)
    bench.facts["sixteen_bit_us"] = round(usual, 2)
    if found > 1.3 * usual and bench.times_count:
        raise WrongResult(
            f"{found:.0f} us where weights of sixteen bits take {usual:.0f}: it lays them out in every call"
        )


def _experts(bench: Bench) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    weight = bench.randint(-127, 128, (4, 128, 64), torch.int8)
    return weight, bench.randint(1, 100, (4, 128)).float() * 1e-4, [3, 0, 5, 9]


def _by_expert(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, counts: list[int]) -> torch.Tensor:
    by_token = x.double().abs().amax(1, keepdim=True) / 127
    rows = ((x.double() / by_token).round()).split(counts)
    parts = [row @ each.double().t() * by.double() for row, each, by in zip(rows, weight, scale, strict=True)]
    return torch.cat(parts) * by_token


def grouped_dequant(bench: Bench) -> None:
    import torch_npu

    weight, scale, counts = _experts(bench)
    x = bench.randn(sum(counts), 64, dtype=torch.float16)
    totals = torch.tensor(counts).cumsum(0)
    found = torch_npu.npu_quant_grouped_matmul_dequant(
        bench.put(x), bench.put(weight), bench.put(scale), bench.put(totals), quant_mode="pertoken"
    )
    bench.close(found, _by_expert(x, weight, scale, counts), 8e-3)


def grouped_int8(bench: Bench) -> None:
    import torch_npu

    weight, scale, counts = _experts(bench)
    x = bench.randn(sum(counts), 64)
    rows, by_row = torch_npu.npu_dynamic_quant(bench.put(x))
    scale = scale.to(bench.half) if bench.half == torch.bfloat16 else scale
    found = torch_npu.npu_grouped_matmul(
        [rows], [bench.put(weight).transpose(1, 2)], scale=[bench.put(scale)], per_token_scale=[by_row],
        group_list=bench.put(torch.tensor(counts)), split_item=2, group_type=0, group_list_type=1,
        output_dtype=bench.half,
    )[0]  # fmt: skip
    bench.close(found, _by_expert(x, weight, scale, counts), 2e-2)
