"""Multi-head latent attention before attention itself, from its formula in float32."""

from __future__ import annotations

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

from .on_chip import assert_close, refusal, setup

FRACTAL_NZ = 29
HIDDEN, QUERY_RANK, HEADS, HEAD_DIM, RANK, ROPE = 1024, 1536, 4, 128, 512, 64


def rms_norm(x: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * gamma.float()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Pairs lie side by side, the result has halves: x [tokens, heads, dim]."""
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.cat((even, odd), -1) * cos.float()[:, None] + torch.cat((-odd, even), -1) * sin.float()[:, None]


class Weights:
    """Random bfloat16 parameters of one layer; sums stay near 1."""

    def __init__(self, hidden: int, query_rank: int) -> None:
        def make(*shape: int) -> torch.Tensor:
            return (torch.randn(shape) / shape[-2] ** 0.5).bfloat16()

        self.dq, self.uq_qr = make(hidden, query_rank), make(query_rank, HEADS * (HEAD_DIM + ROPE))
        self.uk, self.dkv_kr = make(HEADS, HEAD_DIM, RANK), make(hidden, RANK + ROPE)
        self.gamma_q, self.gamma_kv = (torch.rand(size).bfloat16() + 0.5 for size in (query_rank, RANK))


def reference(x: torch.Tensor, w: Weights, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, ...]:
    latent = rms_norm(x.float() @ w.dq.float(), w.gamma_q)
    heads = (latent @ w.uq_qr.float()).view(len(x), HEADS, HEAD_DIM + ROPE)
    query = torch.einsum("thd,hdr->thr", heads[..., :HEAD_DIM], w.uk.float())
    keys = x.float() @ w.dkv_kr.float()
    key_rope = rotate(keys[:, None, RANK:], cos, sin)[:, 0]
    return query, rotate(heads[..., HEAD_DIM:], cos, sin), rms_norm(keys[:, :RANK], w.gamma_kv), key_rope


def inputs(tokens: int, hidden: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    angle = torch.rand(tokens, ROPE // 2).repeat(1, 2) * 6
    slots = torch.randperm(6 * 16)[:tokens]
    return torch.randn(tokens, hidden).bfloat16(), angle.cos().bfloat16(), angle.sin().bfloat16(), slots


def caches(dtype: torch.dtype = torch.bfloat16) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(6, 16, 1, RANK, dtype=dtype), torch.zeros(6, 16, 1, ROPE, dtype=dtype)


def written(cache: torch.Tensor, slots: torch.Tensor, fractal: bool) -> torch.Tensor:
    blocks, size, _, width = cache.shape
    rows = cache.cpu()
    if fractal:  # [blocks, width / 16, size, 16] is what lies there
        rows = rows.reshape(blocks, width // 16, size, 16).transpose(1, 2)
    return rows.reshape(blocks * size, width)[slots]


def check_bfloat16(mode: str) -> None:
    torch_npu = setup()
    torch.npu.config.allow_internal_format = True
    w = Weights(HIDDEN, QUERY_RANK)
    x, cos, sin, slots = inputs(7, HIDDEN)
    kv_cache, kr_cache = (cache.npu() for cache in caches())
    query, query_rope, _, norm, _ = torch_npu.npu_mla_prolog_v3(
        x.npu(),
        *(torch_npu.npu_format_cast(part.npu(), FRACTAL_NZ) for part in (w.dq, w.uq_qr)),
        w.uk.npu(),
        torch_npu.npu_format_cast(w.dkv_kr.npu(), FRACTAL_NZ),
        w.gamma_q.npu(),
        w.gamma_kv.npu(),
        sin.npu(),
        cos.npu(),
        kv_cache,
        kr_cache,
        cache_index=slots.npu(),
        cache_mode=mode,
        query_norm_flag=True,
    )
    expected = reference(x, w, cos, sin)
    assert_close(query, expected[0], "query", 3)
    assert_close(query_rope, expected[1], "rotary query", 3)
    assert_close(norm, rms_norm(x.float() @ w.dq.float(), w.gamma_q), "latent query", 3)
    assert_close(written(kv_cache, slots, mode == "PA_NZ"), expected[2], "keys", 3)
    assert_close(written(kr_cache, slots, mode == "PA_NZ"), expected[3], "rotary keys", 3)


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("mode", ["PA_BSND", "PA_NZ"])
def test_bfloat16(npu: Npu, mode: str) -> None:
    npu.call(check_bfloat16, mode)


def quantized(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 and a scale [1, columns]."""
    scale = weight.float().abs().amax(0, keepdim=True) / 127
    return (weight.float() / scale).round().to(torch.int8), scale


def check_int8() -> None:
    """All in int8, the cache and the query included: each within the steps of its own scale."""
    torch_npu = setup()
    torch.npu.config.allow_internal_format = True
    w = Weights(HIDDEN, QUERY_RANK)
    x, cos, sin, slots = inputs(5, HIDDEN)
    (dq, dq_scale), (up, up_scale), (down, down_scale) = (quantized(part) for part in (w.dq, w.uq_qr, w.dkv_kr))
    x_scale = x.float().abs().amax(-1, keepdim=True) / 127
    kv_cache, kr_cache = caches(torch.int8)[0].npu(), caches()[1].npu()
    cache_scale = torch.tensor([30.0])
    query, query_rope, scale, _, _ = torch_npu.npu_mla_prolog_v3(
        (x.float() / x_scale).round().to(torch.int8).npu(),
        *(torch_npu.npu_format_cast(part.npu(), FRACTAL_NZ) for part in (dq, up)),
        w.uk.npu(),
        torch_npu.npu_format_cast(down.npu(), FRACTAL_NZ),
        w.gamma_q.npu(),
        w.gamma_kv.npu(),
        sin.npu(),
        cos.npu(),
        kv_cache,
        kr_cache,
        cache_index=slots.npu(),
        dequant_scale_x=x_scale.npu(),
        dequant_scale_w_dq=dq_scale.npu(),
        dequant_scale_w_uq_qr=up_scale.npu(),
        dequant_scale_w_dkv_kr=down_scale.npu(),
        quant_scale_ckv=cache_scale.npu(),
        weight_quant_mode=2,
        kv_cache_quant_mode=1,
        query_quant_mode=1,
    )
    expected = reference(x, w, cos, sin)
    assert query.dtype == torch.int8 and scale.shape == (5, HEADS, 1)
    for label, found, wanted in [
        ("query", query.cpu().float() * scale.cpu(), expected[0]),
        ("rotary query", query_rope.cpu().float() * scale.cpu() / cache_scale, expected[1]),
        ("keys", written(kv_cache, slots, False).float() / cache_scale, expected[2]),
        ("rotary keys", written(kr_cache, slots, False).float(), expected[3]),
    ]:
        error = (found - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()
        assert error < 0.03, f"{label}: relative error {error:.4f}"  # int8 throughout: about 1 % each product


@pytest.mark.chips("910B3")
def test_int8(npu: Npu) -> None:
    npu.call(check_int8)


def refusals() -> dict[str, str]:
    torch_npu = setup()
    messages = {}
    for label, hidden, rank, mode in [
        ("hidden", 512, 1536, "PA_BSND"),
        ("rank", 1024, 512, "PA_BSND"),
        ("mode", 1024, 1536, "ND"),
    ]:
        w = Weights(hidden, rank)
        x, cos, sin, slots = inputs(3, hidden)
        tensors = (w.dq, w.uq_qr, w.uk, w.dkv_kr, w.gamma_q, w.gamma_kv, sin, cos, *caches())
        messages[label] = refusal(
            lambda x=x, tensors=tensors, slots=slots, mode=mode: torch_npu.npu_mla_prolog_v3(
                x.npu(), *(tensor.npu() for tensor in tensors), cache_index=slots.npu(), cache_mode=mode
            )
        )
    return messages


@pytest.mark.chips("910B3")
def test_undocumented_sizes_are_refused(npu: Npu) -> None:
    messages = npu.call(refusals)
    assert "the hidden size (He) is 512" in messages["hidden"]
    assert "the query's rank (Hcq) is 512" in messages["rank"]
    assert messages["mode"] and "not refused" not in messages["mode"]
