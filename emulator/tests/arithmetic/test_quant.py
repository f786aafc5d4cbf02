"""int8 quantization and products against the same arithmetic in torch on the CPU: shapes, layouts, types, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

from .on_chip import assert_close, refusal, setup

FRACTAL_NZ = 29
SHAPES = [(1, 32, 16), (1, 96, 80), (3, 64, 48), (17, 160, 33), (33, 512, 96), (130, 288, 70)]


def int8(*shape: int) -> torch.Tensor:
    return torch.randint(-128, 128, shape, dtype=torch.int8)


def exact(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a.double() @ b.double()  # exact: sums of int8 products stay below 2**53


def truncated(scale: torch.Tensor) -> torch.Tensor:
    """The upper 19 bits of a float32: what a 64-bit quantization parameter keeps."""
    return (scale.float().view(torch.int32) & ~0x1FFF).view(torch.float32)


def assert_equal_or_adjacent(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """int8 values equal but for exact ties, which float32 and double may round to either side: at most one in 200."""
    difference = (actual.cpu().int() - expected.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() <= 0.005


# ------------------------------------------------------------------------------------------------ quantization


def check_static_quantization(dtype: torch.dtype) -> None:
    torch_npu = setup()
    for m, k, _ in SHAPES:
        x = torch.randn(m, k).mul(3).to(dtype)
        for scale, offset in [
            (torch.tensor([21.0]), torch.tensor([-7.0])),
            (torch.rand(k) * 40 + 5, torch.randint(-20, 20, (k,)).float()),
            (torch.tensor([60.0]), None),
        ]:
            scale, offset = scale.to(dtype), None if offset is None else offset.to(dtype)
            y = torch_npu.npu_quantize(
                x.npu(), scale.npu(), None if offset is None else offset.npu(), torch.qint8, -1, False
            )
            moved = x.float() * scale.float() + (0 if offset is None else offset.float())
            assert_equal_or_adjacent(y, moved.round().clamp(-128, 127))


@pytest.mark.chips("310P3", "910B3")
def test_static_quantization(npu: Npu) -> None:
    npu.call(check_static_quantization, torch.float16)


@pytest.mark.chips("910B3")
def test_static_quantization_of_bfloat16(npu: Npu) -> None:
    npu.call(check_static_quantization, torch.bfloat16)


def check_dynamic_quantization(dtype: torch.dtype) -> None:
    torch_npu = setup()
    for m, k, _ in SHAPES:
        x = torch.randn(2, m, k).mul(3).to(dtype)
        x[0, 0] = 0
        y, scale = torch_npu.npu_dynamic_quant(x.npu())
        expected = x.float().abs().amax(-1) / 127
        torch.testing.assert_close(scale.cpu(), expected)
        assert y.cpu()[0, 0].eq(0).all()
        assert_equal_or_adjacent(y, (x.float() / expected.clamp(min=1e-30).unsqueeze(-1)).round())


@pytest.mark.chips("310P3", "910B3")
def test_dynamic_quantization_by_row(npu: Npu) -> None:
    npu.call(check_dynamic_quantization, torch.float16)


def check_smoothed_and_asymmetric() -> None:
    torch_npu = setup()
    x, smooth = torch.randn(9, 96).half(), (torch.rand(96) + 0.5).half()
    y, scale = torch_npu.npu_dynamic_quant(x.npu(), smooth_scales=smooth.npu())
    moved = x.float() * smooth.float()
    expected = moved.abs().amax(-1) / 127
    torch.testing.assert_close(scale.cpu(), expected)
    assert_equal_or_adjacent(y, (moved / expected.unsqueeze(-1)).round())
    y, scale, offset = torch_npu.npu_dynamic_quant_asymmetric(x.npu())
    restored = (y.cpu().float() - offset.cpu().unsqueeze(-1)) * scale.cpu().unsqueeze(-1)
    assert ((restored - x.float()).abs() <= scale.cpu().unsqueeze(-1) * 0.51).all()


@pytest.mark.chips("910B3")
def test_dynamic_quantization_smoothed_and_asymmetric(npu: Npu) -> None:
    npu.call(check_smoothed_and_asymmetric)


def check_parameters() -> None:
    torch_npu = setup()
    scale, offset = torch.rand(40) * 1e-3, torch.randint(-300, 300, (40,)).float()
    bits = torch_npu.npu_trans_quant_param(scale.npu()).cpu()
    assert torch.equal((bits & 0xFFFFFFFF).to(torch.int32).view(torch.float32), truncated(scale))
    assert (bits >> 46).eq(1).all()
    bits = torch_npu.npu_trans_quant_param(scale.npu(), offset.npu()).cpu()
    found = (bits >> 37) & 0x1FF
    found = torch.where(found > 255, found - 512, found)
    assert torch.equal(found.float(), offset.clamp(-256, 255))


@pytest.mark.chips("310P3", "910B3")
def test_parameters_keep_nineteen_bits_of_a_scale(npu: Npu) -> None:
    npu.call(check_parameters)


# ------------------------------------------------------------------------------------------------ products


def weights(torch_npu: Any, weight: torch.Tensor) -> list[torch.Tensor]:
    """A [n, k] weight as the [k, n] operand: in FRACTAL_NZ either way round and, but on 310P, row-major."""
    nz_only = "310P" in torch_npu.npu.get_device_name(0)
    torch.npu.config.allow_internal_format = True
    stored = [
        torch_npu.npu_format_cast(weight.npu(), FRACTAL_NZ).t(),
        torch_npu.npu_format_cast(weight.t().contiguous().npu(), FRACTAL_NZ),
    ]
    return stored if nz_only else [*stored, weight.npu().t(), weight.t().contiguous().npu()]


def check_static_products() -> None:
    torch_npu = setup()
    for m, k, n in SHAPES:
        x, weight = int8(m, k), int8(n, k)
        scale, bias = (torch.rand(n) + 0.5) * 1e-4, torch.randint(-9000, 9000, (n,), dtype=torch.int32)
        sums = exact(x, weight.t()) + bias
        parameters = torch_npu.npu_trans_quant_param(scale.npu())
        for operand in weights(torch_npu, weight):
            y = torch_npu.npu_quant_matmul(x.npu(), operand, parameters, bias=bias.npu(), output_dtype=torch.float16)
            torch.testing.assert_close(y.cpu().double(), sums * truncated(scale), rtol=1e-3, atol=1e-4)
            small = (scale * 0.05).npu()
            y = torch_npu.npu_quant_matmul(x.npu(), operand, small, offset=torch.full((n,), 5.0).npu(), bias=bias.npu())
            assert y.dtype == torch.int8
            assert_equal_or_adjacent(y, (sums * truncated(scale * 0.05) + 5).round().clamp(-128, 127))


@pytest.mark.chips("310P3", "910B3")
def test_static_products(npu: Npu) -> None:
    npu.call(check_static_products)


def check_dynamic_products(dtype: torch.dtype, bias_dtype: torch.dtype | None) -> None:
    torch_npu = setup()
    for m, k, n in SHAPES:
        x, weight = int8(m, k), int8(n, k)
        scale, by_row = (torch.rand(n) + 0.5) * 1e-2, (torch.rand(m) + 0.5) * 1e-2
        bias = None if bias_dtype is None else torch.randn(n).mul(5).to(bias_dtype)
        expected = exact(x, weight.t()) * scale * by_row.unsqueeze(1) + (0 if bias is None else bias.double())
        for operand in weights(torch_npu, weight):
            y = torch_npu.npu_quant_matmul(
                x.npu(),
                operand,
                scale.npu(),
                pertoken_scale=by_row.npu(),
                bias=None if bias is None else bias.npu(),
                output_dtype=dtype,
            )
            tolerance = 1e-3 if dtype == torch.float16 else 1e-2
            torch.testing.assert_close(y.cpu().double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.chips("310P3", "910B3")
def test_products_with_a_scale_for_each_row(npu: Npu) -> None:
    npu.call(check_dynamic_products, torch.float16, None)


@pytest.mark.chips("910B3")
@pytest.mark.parametrize(
    ("dtype", "bias"),
    [(torch.float16, torch.float16), (torch.bfloat16, torch.bfloat16), (torch.bfloat16, torch.float32)],
    ids=str,
)
def test_products_with_a_bias_in_the_output_s_scale(npu: Npu, dtype: torch.dtype, bias: torch.dtype) -> None:
    npu.call(check_dynamic_products, dtype, bias)


def integer_products() -> float:
    torch_npu = setup()
    x, weight = int8(5, 4096), int8(24, 4096)
    y = torch_npu.npu_quant_matmul(x.npu(), weight.npu().t(), torch.ones(24).npu(), output_dtype=torch.int32)
    return float((y.cpu().double() - exact(x, weight.t())).abs().max())


@pytest.mark.chips("910B3")
def test_sums_are_exact(npu: Npu) -> None:
    assert npu.call(integer_products) == 0


# ------------------------------------------------------------------------------------------------ refusals, cost


def refusals_310p() -> dict[str, str]:
    torch_npu = setup()
    torch.npu.config.allow_internal_format = True
    x, weight = int8(4, 64).npu(), int8(32, 64).npu()
    stored = torch_npu.npu_format_cast(weight, FRACTAL_NZ).t()
    scale, by_row = torch.ones(32).npu(), torch.ones(4).npu()

    def product(operand: torch.Tensor, **options: object) -> str:
        return refusal(lambda: torch_npu.npu_quant_matmul(x, operand, scale, output_dtype=torch.float16, **options))

    return {
        "row-major weight": product(weight.t(), pertoken_scale=by_row),
        "float bias": product(stored, pertoken_scale=by_row, bias=torch.ones(32).half().npu()),
        "width": refusal(lambda: torch_npu.npu_dynamic_quant(torch.ones(2, 40).half().npu())),
        "smooth": refusal(
            lambda: torch_npu.npu_dynamic_quant(
                torch.ones(2, 64).half().npu(), smooth_scales=torch.ones(64).half().npu()
            )
        ),
        "int4": refusal(
            lambda: torch_npu.npu_quantize(
                torch.ones(2, 64).half().npu(), torch.ones(1).half().npu(), None, torch.quint4x2, -1, False
            )
        ),
    }


@pytest.mark.chips("310P3")
def test_what_310p_documents_otherwise_is_refused(npu: Npu) -> None:
    messages = npu.call(refusals_310p)
    assert "must be FRACTAL_NZ on Ascend310P3" in messages["row-major weight"]
    assert "bias float16 and out float16 is not a supported combination" in messages["float bias"]
    assert "must be a multiple of 32" in messages["width"]
    assert "does not take part" in messages["smooth"]
    assert "must be 2 (INT8) on Ascend310P3" in messages["int4"]


def refusals_of_shape() -> dict[str, str]:
    torch_npu = setup()
    x, weight = int8(4, 64).npu(), int8(32, 64).npu().t()
    return {
        "scale": refusal(
            lambda: torch_npu.npu_quant_matmul(
                x, weight, torch.ones(16).npu(), pertoken_scale=torch.ones(4).npu(), output_dtype=torch.float16
            )
        ),
        "inner": refusal(
            lambda: torch_npu.npu_quant_matmul(
                int8(4, 32).npu(), weight, torch.ones(32).npu(), output_dtype=torch.bfloat16
            )
        ),
    }


@pytest.mark.chips("910B3")
def test_wrong_shapes_are_refused(npu: Npu) -> None:
    messages = npu.call(refusals_of_shape)
    assert "x2Scale has sizes [16], but must have [32] or [1]" in messages["scale"]
    assert "x1 has 32 columns and x2 64 rows" in messages["inner"]


# ------------------------------------------------------------------------------------------------ weights of few bits


def packed(values: torch.Tensor) -> torch.Tensor:
    """Signed four-bit values [k, n], eight of a row to an int32, the first in the lowest bits."""
    words = torch.zeros(values.shape[0], values.shape[1] // 8, dtype=torch.int32)
    for index in range(8):
        words |= (values[:, index::8].to(torch.int32) & 0xF) << (4 * index)
    return words


def check_weight_only(bits: int, dtype: torch.dtype) -> None:
    torch_npu = setup()
    for m, k, n in [(1, 64, 48), (5, 128, 96), (40, 256, 32)]:
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1)
        values = torch.randint(low, high, (k, n), dtype=torch.int8)
        stored = packed(values) if bits == 4 else values
        x = torch.randn(m, k).to(dtype)
        for group in (0, 32):
            shape = (n,) if group == 0 else (k // group, n)
            scale, offset = (torch.rand(shape) * 0.1 + 0.05).to(dtype), torch.randint(-3, 4, shape).to(dtype)
            y = torch_npu.npu_weight_quant_batchmatmul(
                x.npu(), stored.npu(), scale.npu(), offset.npu(), antiquant_group_size=group
            )
            by_row = (lambda t: t) if group == 0 else (lambda t: t.repeat_interleave(group, 0))  # noqa: B023
            weight = ((values.float() + by_row(offset.float())) * by_row(scale.float())).to(dtype)
            assert_close(y, x.float() @ weight.float(), f"{bits} bits, groups of {group}, {m, k, n}", 8)


@pytest.mark.chips("310P3", "910B3")
def test_weights_of_eight_bits(npu: Npu) -> None:
    npu.call(check_weight_only, 8, torch.float16)


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_weights_of_four_bits(npu: Npu, dtype: torch.dtype) -> None:
    npu.call(check_weight_only, 4, dtype)


def four_bits_refused() -> str:
    torch_npu = setup()
    x, weight, scale = torch.ones(2, 64).half(), torch.zeros(64, 4, dtype=torch.int32), torch.ones(32).half()
    return refusal(lambda: torch_npu.npu_weight_quant_batchmatmul(x.npu(), weight.npu(), scale.npu()))


@pytest.mark.chips("310P3")
def test_weights_of_four_bits_are_refused_on_310p(npu: Npu) -> None:
    assert "weight is int32, but must be one of int8" in npu.call(four_bits_refused)


# ------------------------------------------------------------------------------------------------ experts

GROUPS = [3, 0, 9, 1]  # rows of each expert; two rows of the input belong to none


def expert_inputs(k: int = 96, n: int = 48) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows [rows, k] fp16, int8 weights [experts, n, k], their scales, and the product of the quantized rows."""
    x, weight = torch.randn(sum(GROUPS) + 2, k).half(), int8(len(GROUPS), n, k)
    scale, by_row = (torch.rand(len(GROUPS), n) + 0.5) * 1e-3, x.float().abs().amax(-1) / 127
    rows = (x.float() / by_row.unsqueeze(1)).round() * by_row.unsqueeze(1)
    whole, expected = weight.float() * scale.unsqueeze(2), []
    for expert, part in enumerate(rows[: sum(GROUPS)].split(GROUPS)):
        expected.append(part @ whole[expert].t())
    return x, weight, scale, torch.cat(expected)


def check_experts_of_310p() -> None:
    torch_npu = setup()
    torch.npu.config.allow_internal_format = True
    x, weight, scale, expected = expert_inputs()
    totals = torch.tensor(GROUPS).cumsum(0).npu()
    for stored in (weight.npu(), torch_npu.npu_format_cast(weight.npu(), FRACTAL_NZ)):
        y = torch_npu.npu_quant_grouped_matmul_dequant(x.npu(), stored, scale.npu(), totals, quant_mode="pertoken")
        assert_close(y[: sum(GROUPS)], expected, "experts", 4)


@pytest.mark.chips("310P3")
def test_experts_on_310p(npu: Npu) -> None:
    npu.call(check_experts_of_310p)


def check_grouped_products(dtype: torch.dtype) -> None:
    torch_npu = setup()
    torch.npu.config.allow_internal_format = True
    x, weight, scale, expected = expert_inputs()
    quantized, by_row = torch_npu.npu_dynamic_quant(x.npu())
    in_dtype = scale.to(torch.bfloat16 if dtype == torch.bfloat16 else torch.float32).npu()
    for stored in (
        weight.npu().transpose(1, 2),
        weight.transpose(1, 2).contiguous().npu(),
        torch_npu.npu_format_cast(weight.transpose(1, 2).contiguous().npu(), FRACTAL_NZ),
    ):
        y = torch_npu.npu_grouped_matmul(
            [quantized],
            [stored],
            scale=[in_dtype],
            per_token_scale=[by_row],
            group_list=torch.tensor(GROUPS).npu(),
            split_item=2,
            group_type=0,
            group_list_type=1,
            output_dtype=dtype,
        )[0]
        assert_close(y[: sum(GROUPS)], expected, "grouped", 4)


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_grouped_products_of_int8(npu: Npu, dtype: torch.dtype) -> None:
    npu.call(check_grouped_products, dtype)


def grouped_products_refused() -> str:
    torch_npu = setup()
    x, weight = int8(4, 32).npu(), int8(2, 32, 16).npu()
    return refusal(
        lambda: torch_npu.npu_grouped_matmul(
            [x],
            [weight],
            scale=[torch.ones(2, 16).npu()],
            per_token_scale=[torch.ones(4).npu()],
            group_list=torch.tensor([2, 2]).npu(),
            split_item=2,
            group_type=0,
            group_list_type=1,
            output_dtype=torch.float16,
        )
    )


@pytest.mark.chips("310P3")
def test_grouped_products_of_int8_are_refused_on_310p(npu: Npu) -> None:
    assert "quant cases do not support on Ascend310P3" in npu.call(grouped_products_refused)


def few_bit_experts(bits: int, dtype: torch.dtype, parts: int | None, k: int = 96, n: int = 48) -> tuple[Any, ...]:
    """Rows, weights of few bits as CANN stores them, [experts, k, n], their scales and offsets, and the products."""
    x, experts = torch.randn(sum(GROUPS) + 2, k).to(dtype), len(GROUPS)
    values = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (experts, k, n), dtype=torch.int8)
    shape = (experts, n) if parts is None else (experts, parts, n)
    scale, offset = (torch.rand(shape) * 0.1 + 0.05).to(dtype), torch.randint(-3, 4, shape).to(dtype)

    def by_row(t: torch.Tensor) -> torch.Tensor:
        return t.float().reshape(experts, -1, n).repeat_interleave(k // (parts or 1), 1)

    numbers = ((values.float() + by_row(offset)) * by_row(scale)).to(dtype).float()
    rows = x[: sum(GROUPS)].float().split(GROUPS)
    expected = torch.cat([part @ matrix for part, matrix in zip(rows, numbers, strict=True)])
    stored = torch.stack([packed(matrix) for matrix in values]) if bits == 4 else values
    return x, stored, scale, offset, expected


def grouped_few_bit(x: torch.Tensor, stored: torch.Tensor, scale: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    import torch_npu

    return torch_npu.npu_grouped_matmul(
        [x.npu()],
        [stored.npu()],
        antiquant_scale=[scale.npu()],
        antiquant_offset=[offset.npu()],
        group_list=torch.tensor(GROUPS).npu(),
        split_item=2,
        group_type=0,
        group_list_type=1,
    )[0]


def check_few_bit_experts(bits: int, dtype: torch.dtype, parts: int | None) -> None:
    setup()
    *operands, expected = few_bit_experts(bits, dtype, parts)
    assert_close(grouped_few_bit(*operands)[: sum(GROUPS)], expected, f"{bits} bits, {parts} parts", 8)


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("bits", "parts"), [(8, None), (4, None), (4, 1), (4, 3)])
def test_grouped_products_with_weights_of_few_bits(npu: Npu, bits: int, dtype: torch.dtype, parts: int | None) -> None:
    npu.call(check_few_bit_experts, bits, dtype, parts)


def few_bit_experts_refused() -> dict[str, str]:
    setup()
    x, stored, scale, offset, _ = few_bit_experts(4, torch.float16, 3)
    eight = few_bit_experts(8, torch.float16, None)[1]
    return {
        "parts": refusal(
            lambda: grouped_few_bit(x, stored, scale.repeat(1, 3, 1)[:, :5], offset.repeat(1, 3, 1)[:, :5])
        ),
        "eight bits": refusal(lambda: grouped_few_bit(x, eight, scale, offset)),
        "types": refusal(lambda: grouped_few_bit(x, stored, scale.bfloat16(), offset)),
    }


@pytest.mark.chips("910B3")
def test_few_bit_experts_of_other_shapes_and_types_are_refused(npu: Npu) -> None:
    messages = npu.call(few_bit_experts_refused)
    assert "5 parts, which do not divide 96 rows" in messages["parts"]
    assert "must have sizes [groups, n] where weight is int8" in messages["eight bits"]
    assert "antiquantScale" in messages["types"]


def few_bits_refused_on_310p() -> str:
    setup()
    return refusal(lambda: grouped_few_bit(*few_bit_experts(4, torch.float16, None)[:4]))


@pytest.mark.chips("310P3")
def test_few_bit_experts_are_refused_on_310p(npu: Npu) -> None:
    assert "quant cases do not support on Ascend310P3" in npu.call(few_bits_refused_on_310p)
