"""What a decoder layer launches beside products and attention: norms, SwiGLU, rotation, embedding."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from ascend_cli.doctor.probe.bench import Bench
from ascend_cli.doctor.probe.case import HEADS_TOGETHER, Case, WrongResult
from ascend_facts.chips import ChipSpec

EPSILON = 1e-6


def layer(chip: ChipSpec) -> Iterator[Case]:
    for name in sorted({"float16", "float32", chip.preferred_dtype}):
        dtype = getattr(torch, name)
        for width in (128, 1024, 5120):
            yield Case(f"npu_rms_norm {name}, {width} wide", partial(rms_norm, dtype, width))
            yield Case(f"npu_add_rms_norm {name}, {width} wide", partial(add_rms_norm, dtype, width))
    yield Case("npu_rms_norm of heads, three dimensions", head_norm)
    yield Case("npu_rms_norm of a row with an infinity", norm_of_infinity, "norm_of_infinity")
    for inner in (64, 3072, 25600):
        yield Case(f"npu_swiglu, {inner} wide", partial(swiglu, inner, chip.preferred_dtype))
    yield Case("npu_swiglu float32", partial(swiglu, 64, "float32"))
    for size in sorted(chip.rotary_head_sizes):
        for tokens in (1, 17):
            yield Case(f"npu_apply_rotary_pos_emb, heads of {size}, {tokens} tokens", partial(rotate, size, tokens))
    yield Case("npu_apply_rotary_pos_emb on columns of a projection", rotate_views, "rotary_views")
    for heads in HEADS_TOGETHER:
        name = f"npu_apply_rotary_pos_emb, {heads} heads together"
        yield Case(name, partial(rotate_many, heads), "rotary_limits")
    yield Case("npu_apply_rotary_pos_emb, interleaved", rotate_interleaved, may_be_refused=True)
    if chip.has_rotary_mul:
        for mode in ("half", "interleave"):
            yield Case(f"npu_rotary_mul, {mode}", partial(rotate_one, mode))
    yield Case("embedding by int32 and int64 ids", embedding)
    yield Case("embedding of a rank, ids in int32", masked_embedding)


def _normalized(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    x = x.double()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON) * weight.double()


def rms_norm(dtype: torch.dtype, width: int, bench: Bench) -> None:
    import torch_npu

    for rows in (1, 7, 33):
        x, weight = bench.randn(rows, width, dtype=dtype), bench.randn(width, dtype=dtype)
        there = bench.put(x), bench.put(weight)
        found = bench.launched(lambda there=there: torch_npu.npu_rms_norm(*there, EPSILON)[0])
        bench.close(found, _normalized(x, weight))


def head_norm(bench: Bench) -> None:
    import torch_npu

    x, weight = bench.randn(9, 8, 128), bench.randn(128)
    found = torch_npu.npu_rms_norm(bench.put(x), bench.put(weight), EPSILON)[0]
    bench.close(found, _normalized(x, weight))


def add_rms_norm(dtype: torch.dtype, width: int, bench: Bench) -> None:
    import torch_npu

    for rows in (1, 17):
        x, residual, weight = (bench.randn(*shape, dtype=dtype) for shape in ((rows, width), (rows, width), (width,)))
        found, _, total = torch_npu.npu_add_rms_norm(bench.put(x), bench.put(residual), bench.put(weight), EPSILON)
        bench.close(total, x.double() + residual.double())
        bench.close(found, _normalized((x.double() + residual.double()).to(dtype), weight))


def norm_of_infinity(bench: Bench) -> None:
    """By IEEE the finite elements of such a row become 0."""
    import torch_npu

    x = torch.ones(2, 32, dtype=torch.float32)
    x[0, 3] = float("inf")
    found = torch_npu.npu_rms_norm(bench.put(x), bench.put(torch.ones(32)), EPSILON)[0].cpu()
    bench.close(found[1], torch.ones(32))
    finite = torch.cat((found[0, :3], found[0, 4:]))
    if bool((finite != 0).any()):
        raise WrongResult(f"the finite elements of a row with an infinity become {finite[0].item()}, by IEEE 0")


def swiglu(inner: int, kind: str, bench: Bench) -> None:
    import torch_npu

    for rows in (1, 9):
        x = bench.randn(rows, 2 * inner, dtype=getattr(torch, kind))
        there = bench.put(x)
        found = bench.launched(lambda there=there: torch_npu.npu_swiglu(there))
        gate, up = x.double().chunk(2, -1)
        bench.close(found, torch.nn.functional.silu(gate) * up)


# ---------------------------------------------------------------- rotation


def _angles(bench: Bench, tokens: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines [1, T, 1, size] of half rotation."""
    angle = torch.rand(tokens, size // 2, generator=torch.Generator().manual_seed(1)) * 6
    both = torch.cat((angle, angle), -1)[None, :, None]
    return both.cos().to(bench.half), both.sin().to(bench.half)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, half: bool = True) -> torch.Tensor:
    x, cos, sin = x.double(), cos.double(), sin.double()
    if half:
        low, high = x.chunk(2, -1)
        other = torch.cat((-high, low), -1)
    else:
        other = torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)
    return x * cos + other * sin


def _rotated(bench: Bench, q: torch.Tensor, k: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Both in place, as the plugin calls it: [1, T, heads, size] on the device."""
    import torch_npu

    there = (bench.put(angle) for angle in angles)
    torch_npu.npu_apply_rotary_pos_emb(q, k, *there, layout="BSND", rotary_mode="half")


def rotate(size: int, tokens: int, bench: Bench) -> None:
    q, k, angles = bench.randn(1, tokens, 16, size), bench.randn(1, tokens, 8, size), _angles(bench, tokens, size)
    there = bench.inside(q), bench.inside(k)
    _rotated(bench, *there, angles)
    for found, given in zip(there, (q, k), strict=True):
        bench.close(found, _turned(given, *angles))


def rotate_views(bench: Bench) -> None:
    tokens, heads, size = 9, (4, 2, 2), 128
    fused, angles = bench.randn(tokens, sum(heads) * size), _angles(bench, tokens, size)
    there = bench.put(fused)
    q, k, v = there.split([count * size for count in heads], -1)
    _rotated(bench, q.view(1, tokens, -1, size), k.view(1, tokens, -1, size), angles)
    wanted = fused.view(1, tokens, -1, size).clone().double()
    wanted[:, :, :6] = _turned(fused.view(1, tokens, -1, size)[:, :, :6], *angles)
    bench.close(there, wanted.view(tokens, -1))
    bench.same(v, fused[:, 6 * size :])


def rotate_many(heads: int, bench: Bench) -> None:
    tokens, size = 50, 128
    q, k, angles = (
        bench.randn(1, tokens, heads - 8, size),
        bench.randn(1, tokens, 8, size),
        _angles(bench, tokens, size),
    )
    there = bench.put(q), bench.put(k)
    _rotated(bench, *there, angles)
    bench.close(there[0], _turned(q, *angles))


def rotate_interleaved(bench: Bench) -> None:
    """A chip that knows no mode but half may compute half without a word."""
    import torch_npu

    q, k = bench.randn(1, 9, 4, 128), bench.randn(1, 9, 2, 128)
    angle = torch.rand(9, 64, generator=torch.Generator().manual_seed(2)).repeat_interleave(2, -1)[None, :, None]
    cos, sin = angle.cos().to(bench.half), angle.sin().to(bench.half)
    there = bench.put(q), bench.put(k)
    torch_npu.npu_apply_rotary_pos_emb(*there, bench.put(cos), bench.put(sin), layout="BSND", rotary_mode="interleave")
    bench.close(there[0], _turned(q, cos, sin, half=False))


def rotate_one(mode: str, bench: Bench) -> None:
    import torch_npu

    for size in (64, 96, 128):
        x = bench.randn(1, 9, 4, size)
        angle = torch.rand(9, size // 2, generator=torch.Generator().manual_seed(3))
        both = torch.cat((angle, angle), -1) if mode == "half" else angle.repeat_interleave(2, -1)
        cos, sin = (part[None, :, None].to(bench.half) for part in (both.cos(), both.sin()))
        found = torch_npu.npu_rotary_mul(bench.put(x), bench.put(cos), bench.put(sin), mode)
        bench.close(found, _turned(x, cos, sin, half=mode == "half"))


# ---------------------------------------------------------------- embedding


def embedding(bench: Bench) -> None:
    table = bench.randn(1000, 128)
    there = bench.put(table)
    for dtype in (torch.int32, torch.int64):
        for count in (1, 9, 112):
            ids = bench.randint(0, 1000, (count,)).to(dtype)
            moved = bench.put(ids)
            found = bench.launched(lambda moved=moved: torch.nn.functional.embedding(moved, there))
            bench.same(found, table[ids.long()])


def masked_embedding(bench: Bench) -> None:
    """As ops.embedding does for a rank: subtract, clamp, compare, look up, fill."""
    table, ids = bench.randn(64, 32), bench.randint(0, 128, (13,))
    there = bench.put(ids) - 64
    own = there.clamp(0, 63)
    found = torch.nn.functional.embedding(own.long(), bench.put(table))
    found.masked_fill_((own != there).unsqueeze(-1), 0)
    local = ids - 64
    expected = table[local.clamp(0, 63).long()].masked_fill((local < 0).unsqueeze(-1), 0)
    bench.same(found, expected)
