"""FlashAttentionScore against attention written out in float32, by the formula of its document."""

from __future__ import annotations

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

from .on_chip import assert_close, refusal, setup

pytestmark = pytest.mark.chips("910B3")
COMPRESSED = 2048
TO_LAYOUT = {  # from [batch, heads, tokens, dim]
    "BNSD": lambda x: x,
    "BSND": lambda x: x.transpose(1, 2),
    "BSH": lambda x: x.transpose(1, 2).flatten(2),
    "SBH": lambda x: x.permute(2, 0, 1, 3).flatten(2),
}


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, hidden: torch.Tensor | None, bias=None):
    """Result, row maxima and row sums; q [batch, heads, tokens, dim], hidden is true where a key is not seen."""
    k, v = (x.float().repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = scale * (q.float() @ k.transpose(-1, -2) + (0 if bias is None else bias.float()))
    if hidden is not None:
        scores = scores.masked_fill(hidden, -torch.inf)
    largest = scores.amax(-1, keepdim=True)
    weights = (scores - largest).exp()
    return weights @ v / weights.sum(-1, keepdim=True), largest[..., 0], weights.sum(-1)


def draw(batch: int, heads: int, kv_heads: int, queries: int, keys: int, dim: int, dtype: torch.dtype):
    shapes = [(batch, heads, queries, dim), (batch, kv_heads, keys, dim), (batch, kv_heads, keys, dim)]
    return [torch.randn(shape).to(dtype) for shape in shapes]


def check_layout(layout: str, dtype: torch.dtype) -> None:
    torch_npu = setup()
    q, k, v = draw(2, 6, 2, 17, 33, 48, dtype)
    place = TO_LAYOUT[layout]
    answer = torch_npu.npu_fusion_attention(*(place(x).contiguous().npu() for x in (q, k, v)), 6, layout, scale=0.2)
    expected, largest, sums = attention(q, k, v, 0.2, None)
    assert_close(answer[0], place(expected), layout, 2)
    assert answer[1].shape == (2, 6, 17, 8)
    assert_close(answer[1], largest[..., None].expand(-1, -1, -1, 8), "softmax max", 100)
    assert_close(answer[2], sums[..., None].expand(-1, -1, -1, 8), "softmax sum", 100)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("layout", TO_LAYOUT)
def test_layouts_and_dtypes(npu: Npu, layout: str, dtype: torch.dtype) -> None:
    npu.call(check_layout, layout, dtype)


def hidden_by(mode: int, queries: int, keys: int, left: int, right: int) -> torch.Tensor:
    """What the compressed modes hide, from the document: 2 aligns to the first key, 3 and 4 to the last."""
    distance = torch.arange(keys) - torch.arange(queries)[:, None] - (keys - queries if mode >= 3 else 0)
    return distance > 0 if mode < 4 else (distance > right) | (distance < -left)


def check_sparse_mode(mode: int, queries: int, keys: int) -> None:
    torch_npu = setup(mode)
    q, k, v = draw(1, 4, 2, queries, keys, 64, torch.float16)
    left, right = 9, 2
    compressed = torch.ones(COMPRESSED, COMPRESSED, dtype=torch.bool).triu(1).npu()
    options = {"scale": 0.125, "sparse_mode": mode, "pre_tockens": left, "next_tockens": right}
    answer = torch_npu.npu_fusion_attention(q.npu(), k.npu(), v.npu(), 4, "BNSD", atten_mask=compressed, **options)
    expected, _, _ = attention(q, k, v, 0.125, hidden_by(mode, queries, keys, left, right))
    assert_close(answer[0], expected, f"mode {mode}", 2)


@pytest.mark.parametrize("mode", [2, 3, 4])
@pytest.mark.parametrize(("queries", "keys"), [(40, 40), (7, 150)])
def test_compressed_masks(npu: Npu, mode: int, queries: int, keys: int) -> None:
    npu.call(check_sparse_mode, mode, queries, keys)


def check_explicit_masks() -> None:
    torch_npu = setup()
    q, k, v = draw(3, 4, 4, 12, 20, 32, torch.float16)
    for shape in ((12, 20), (1, 1, 12, 20), (3, 1, 12, 20), (3, 4, 12, 20)):
        hidden = torch.rand(shape) < 0.4
        hidden[..., 0] = False  # every row sees a key
        answer = torch_npu.npu_fusion_attention(
            q.npu(), k.npu(), v.npu(), 4, "BNSD", atten_mask=hidden.npu(), scale=0.2, sparse_mode=1
        )
        assert_close(answer[0], attention(q, k, v, 0.2, hidden)[0], f"mask {shape}", 2)
    bias = torch.randn(3, 4, 12, 20).half()
    answer = torch_npu.npu_fusion_attention(q.npu(), k.npu(), v.npu(), 4, "BNSD", pse=bias.npu(), scale=0.2)
    assert_close(answer[0], attention(q, k, v, 0.2, None, bias)[0], "bias", 2)


def test_explicit_masks_and_bias(npu: Npu) -> None:
    npu.call(check_explicit_masks)


def check_packed() -> None:
    torch_npu = setup()
    query_lengths, key_lengths = [5, 0, 19], [5, 3, 31]
    q, k, v = torch.randn(24, 4, 64).half(), torch.randn(39, 2, 64).half(), torch.randn(39, 2, 64).half()
    compressed = torch.ones(COMPRESSED, COMPRESSED, dtype=torch.bool).triu(1).npu()
    answer = torch_npu.npu_fusion_attention(
        q.npu(), k.npu(), v.npu(), 4, "TND", atten_mask=compressed, scale=0.125, sparse_mode=3,
        actual_seq_qlen=[5, 5, 24], actual_seq_kvlen=[5, 8, 39],
    )  # fmt: skip
    expected = []
    sequences = zip(q.split(query_lengths), k.split(key_lengths), v.split(key_lengths), strict=True)
    for each_q, each_k, each_v in sequences:
        parts = [x.transpose(0, 1)[None] for x in (each_q, each_k, each_v)]
        hidden = hidden_by(3, len(each_q), len(each_k), 0, 0)
        if len(each_q):
            expected.append(attention(*parts, 0.125, hidden)[0][0].transpose(0, 1))
    assert_close(answer[0], torch.cat(expected), "TND", 2)


def test_packed_sequences(npu: Npu) -> None:
    npu.call(check_packed)


def refusals() -> list[str]:
    torch_npu = setup()
    q, k, v = (x.npu() for x in draw(1, 6, 4, 8, 8, 32, torch.float16))
    small = torch.ones(64, 64, dtype=torch.bool).npu()
    attend = torch_npu.npu_fusion_attention
    return [
        refusal(lambda: attend(q, k, v, 6, "BNSD")),
        refusal(lambda: attend(q[:, :4], k, v, 4, "BNSD", atten_mask=small, sparse_mode=3)),
        refusal(lambda: attend(q[:, :4], k, v, 4, "BNSD", keep_prob=0.5)),
    ]


def test_broken_rules_are_named(npu: Npu) -> None:
    heads, mask, dropout = npu.call(refusals)
    assert "must be a multiple" in heads
    assert "2048 x 2048" in mask
    assert "dropout" in dropout
