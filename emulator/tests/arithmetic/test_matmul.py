"""Matrix products against float32 on the CPU: layouts, FRACTAL_NZ weights, broadcasting, precision modes, refusals."""

from __future__ import annotations

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

from .on_chip import assert_close, refusal, setup

FRACTAL_NZ = 29
# Rows below and above the number that reads weights in place; widths that fill fractals and that do not.
SHAPES = [
    (1, 64, 48),
    (1, 577, 1000),
    (1, 80, 600),
    (3, 40, 17),
    (8, 128, 16),
    (15, 33, 65),
    (17, 576, 96),
    (33, 250, 49),
    (130, 300, 70),
]


def check_layouts(dtype: torch.dtype) -> None:
    setup()
    for m, k, n in SHAPES:
        a, b = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
        expected = a.float() @ b.float()
        scale = max(1.0, k / 64) ** 0.5
        assert_close(torch.mm(a.npu(), b.npu()), expected, f"row-major {m, k, n}", scale)
        assert_close(torch.mm(a.npu(), b.t().contiguous().npu().t()), expected, f"transposed right {m, k, n}", scale)
        assert_close(torch.mm(a.t().contiguous().npu().t(), b.npu()), expected, f"transposed left {m, k, n}", scale)
        strided = torch.randn(k, 2 * n).to(dtype).npu()[:, ::2]
        strided.copy_(b.npu())
        assert_close(torch.mm(a.npu(), strided), expected, f"strided right {m, k, n}", scale)


@pytest.mark.chips("310P3", "910B3")
def test_float16_in_every_layout(npu: Npu) -> None:
    npu.call(check_layouts, torch.float16)


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_other_types_in_every_layout(npu: Npu, dtype: torch.dtype) -> None:
    npu.call(check_layouts, dtype)


def check_fractal_weights() -> None:
    torch_npu = setup()
    torch.npu.config.allow_internal_format = True
    for m, k, n in SHAPES:
        a, weight = torch.randn(m, k).half(), torch.randn(n, k).half()
        stored = torch_npu.npu_format_cast(weight.npu(), FRACTAL_NZ)
        assert torch_npu.get_npu_format(stored) in (FRACTAL_NZ, torch_npu.Format.FRACTAL_NZ)
        scale = max(1.0, k / 64) ** 0.5
        assert_close(
            torch.nn.functional.linear(a.npu(), stored), a.float() @ weight.float().t(), f"linear {m, k, n}", scale
        )
        stored = torch_npu.npu_format_cast(weight.t().contiguous().npu(), FRACTAL_NZ)
        assert_close(torch.matmul(a.npu(), stored), a.float() @ weight.float().t(), f"matmul {m, k, n}", scale)


@pytest.mark.chips("310P3")
def test_fractal_weights_either_way_round(npu: Npu) -> None:
    npu.call(check_fractal_weights)


def check_shared_products() -> None:
    """Columns that four threads share out are those of products too small to be shared, on streams that compete."""
    setup()
    threads = torch.get_num_threads()
    torch.set_num_threads(4)  # taken up by threads of new streams
    x, weight = torch.randn(8, 1024).half().npu(), torch.randn(4096, 1024).half().npu()
    linear = torch.nn.functional.linear
    expected = torch.cat([linear(x, weight[first : first + 64]).cpu() for first in range(0, 4096, 64)], dim=1)
    results = []
    for stream in [torch.npu.Stream() for _ in range(2)]:
        with torch.npu.stream(stream):
            results += [linear(x, weight) for _ in range(20)]
    torch.npu.synchronize()
    torch.set_num_threads(threads)
    assert all(torch.equal(result.cpu(), expected) for result in results)


@pytest.mark.chips("910B3")
def test_threads_do_not_change_a_product(npu: Npu) -> None:
    npu.call(check_shared_products)


def check_broadcasting() -> None:
    setup()
    pairs = [
        ((4,), (4,)),
        ((4,), (4, 5)),
        ((3, 4), (4,)),
        ((2, 3, 4), (4, 5)),
        ((2, 1, 3, 4), (5, 4, 6)),
        ((3, 4), (2, 4, 5)),
    ]
    for left, right in pairs:
        a, b = torch.randn(left).half(), torch.randn(right).half()
        assert_close(torch.matmul(a.npu(), b.npu()), torch.matmul(a.float(), b.float()), f"{left} @ {right}", 2)
    a, b = torch.randn(5, 6, 32).half(), torch.randn(5, 32, 7).half()
    assert_close(torch.bmm(a.npu(), b.npu()), torch.bmm(a.float(), b.float()), "bmm", 2)
    empty = torch.mm(torch.zeros(3, 0).half().npu(), torch.zeros(0, 4).half().npu())
    assert empty.cpu().eq(0).all()


@pytest.mark.chips("310P3", "910B3")
def test_broadcasting_as_torch_does(npu: Npu) -> None:
    npu.call(check_broadcasting)


def check_addends() -> None:
    setup()
    a, b = torch.randn(6, 40).half(), torch.randn(40, 24).half()
    for shape in [(24,), (1, 24), (6, 1), (6, 24), (1,)]:
        c = torch.randn(shape).half()
        expected = torch.addmm(c.float(), a.float(), b.float(), beta=0.5, alpha=2.0)
        assert_close(torch.addmm(c.npu(), a.npu(), b.npu(), beta=0.5, alpha=2.0), expected, f"addmm {shape}", 4)
    c = torch.randn(6, 24).half()
    inplace = c.npu()
    inplace.addmm_(a.npu(), b.npu())
    assert_close(inplace, torch.addmm(c.float(), a.float(), b.float()), "addmm_", 4)
    batch1, batch2 = torch.randn(3, 6, 40).half(), torch.randn(3, 40, 24).half()
    c = torch.randn(3, 1, 24).half()
    assert_close(
        torch.baddbmm(c.npu(), batch1.npu(), batch2.npu()),
        torch.baddbmm(c.float(), batch1.float(), batch2.float()),
        "baddbmm",
        4,
    )
    c = torch.randn(6, 24).half()
    assert_close(
        torch.addbmm(c.npu(), batch1.npu(), batch2.npu()),
        torch.addbmm(c.float(), batch1.float(), batch2.float()),
        "addbmm",
        8,
    )


@pytest.mark.chips("310P3", "910B3")
def test_addends_broadcast(npu: Npu) -> None:
    npu.call(check_addends)


def float32_error() -> float:
    setup()
    a, b = torch.randn(64, 256), torch.randn(256, 64)
    return float((torch.mm(a.npu(), b.npu()).cpu() - a @ b).abs().max())


def check_rounded_operands() -> None:
    """Whatever way round the right matrix lies: its elements in float16, their products summed in float32."""
    setup()
    for m, k, n in SHAPES:
        a, b = torch.randn(m, k), torch.randn(k, n)
        expected = a.half().float() @ b.half().float()
        strided = torch.empty(k, 2 * n, device="npu")[:, ::2].copy_(b)
        for right in (b.npu(), b.t().contiguous().npu().t(), strided):
            torch.testing.assert_close(torch.mm(a.npu(), right).cpu(), expected, atol=1e-3, rtol=1e-4)


@pytest.mark.chips("310P3")
def test_float32_is_computed_in_float16_where_the_cube_unit_has_no_other(npu: Npu) -> None:
    assert 1e-3 < npu.call(float32_error) < 0.1
    npu.call(check_rounded_operands)


@pytest.mark.chips("910B3")
def test_float32_is_exact_where_the_cube_unit_has_it(npu: Npu) -> None:
    assert npu.call(float32_error) < 1e-4


def refusals() -> dict[str, str]:
    setup()
    half = torch.ones(4, 8).half().npu()
    return {
        "inner": refusal(lambda: torch.ops.aten.mm.out(half, half, out=torch.empty(4, 8).half().npu())),
        "bf16": refusal(lambda: torch.mm(torch.ones(2, 2).bfloat16().npu(), torch.ones(2, 2).bfloat16().npu())),
    }


@pytest.mark.chips("310P3")
def test_bfloat16_is_refused_on_310p(npu: Npu) -> None:
    assert "bfloat16, which Ascend310P3 does not have" in npu.call(refusals)["bf16"]
