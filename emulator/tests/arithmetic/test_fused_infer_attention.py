"""FusedInferAttentionScore against attention in float32, as CANN's pages of it and of sparseMode define it."""

from __future__ import annotations

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

from .on_chip import assert_close, refusal, setup

BLOCK = 128
DEFAULT, ALL, LEFT_UP_CAUSAL, RIGHT_DOWN_CAUSAL, BAND = range(5)  # sparseMode


def visible(mode: int, queries: int, keys: int, before: int = 0, after: int = 0) -> torch.Tensor:
    """[queries, keys]: what each sparseMode lets a query see. A band counts from the last query at the last key."""
    query, key = torch.arange(queries)[:, None], torch.arange(keys)[None]
    if mode == LEFT_UP_CAUSAL:
        return key <= query
    diagonal = query + keys - queries
    if mode == RIGHT_DOWN_CAUSAL:
        return key <= diagonal
    return (key >= diagonal - before) & (key <= diagonal + after)


def attend(query, key, value, seen: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """[q, heads, d] on [k, kv heads, d]: the result, and the log of the sum of exponentials [q, heads]."""
    group = query.shape[1] // key.shape[1]
    key, value = (part.float().repeat_interleave(group, 1) for part in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query.float(), key) * query.shape[-1] ** -0.5
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), value), scores.logsumexp(-1).T


def compressed_mask() -> torch.Tensor:
    return torch.ones(2048, 2048, dtype=torch.int8).triu(1).npu()


class Pages:
    """Keys and values of several sequences in shuffled blocks [blocks, block size, heads * d]."""

    def __init__(self, lengths: list[int], heads: int, size: int, dtype: torch.dtype) -> None:
        self.keys = [torch.randn(length, heads, size).to(dtype) for length in lengths]
        self.values = [torch.randn(length, heads, size).to(dtype) for length in lengths]
        width = -(-max(lengths) // BLOCK)
        self.table = torch.randperm(width * len(lengths)).view(len(lengths), width).int()
        self.key, self.value = (self._pages(sequences) for sequences in (self.keys, self.values))

    def _pages(self, sequences: list[torch.Tensor]) -> torch.Tensor:
        pages = sequences[0].new_full(
            (self.table.numel(), BLOCK, *sequences[0].shape[1:]), 7.0
        )  # what must not be read
        for sequence, row in zip(sequences, self.table, strict=True):
            for block, tokens in zip(row, sequence.split(BLOCK), strict=False):
                pages[block, : len(tokens)] = tokens
        return pages.flatten(2)


def packed(
    queries: list[int], keys: list[int], heads: int, kv_heads: int, size: int, dtype: torch.dtype, window: int
) -> None:
    """Layout TND on pages: queries[i] new tokens at the end of keys[i]; window 0 is plain causal."""
    torch_npu = setup()
    pages = Pages(keys, kv_heads, size, dtype)
    query = torch.randn(sum(queries), heads, size).to(dtype)
    mode = BAND if window else RIGHT_DOWN_CAUSAL
    out, lse = torch_npu.npu_fused_infer_attention_score(
        query.npu(),
        pages.key.npu(),
        pages.value.npu(),
        atten_mask=compressed_mask(),
        actual_seq_lengths=torch.tensor(queries).cumsum(0).tolist(),
        actual_seq_lengths_kv=keys,
        block_table=pages.table.npu(),
        num_heads=heads,
        num_key_value_heads=kv_heads,
        scale=size**-0.5,
        input_layout="TND",
        block_size=BLOCK,
        sparse_mode=mode,
        pre_tokens=window - 1 if window else 2147483647,
        next_tokens=0,
        softmax_lse_flag=True,
    )
    parts = zip(query.split(queries), pages.keys, pages.values, strict=True)
    expected = [attend(q, k, v, visible(mode, len(q), len(k), window - 1)) for q, k, v in parts]
    assert_close(out, torch.cat([result for result, _ in expected]), f"window {window}")
    assert_close(lse[..., 0], torch.cat([logarithm for _, logarithm in expected]), "log-sum-exp", 10)


DECODE = ([1, 1, 1, 1], [1, BLOCK, BLOCK + 1, 300])
CHUNKS = ([1, 7, 130, 64, 3], [200, 7, 300, 64, 131])  # a decode, whole prompts, chunks after a cached prefix


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("lengths", [DECODE, CHUNKS], ids=["decode", "chunked prefill"])
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(8, 2, 128), (9, 3, 64), (4, 4, 128)])
def test_packed_on_pages(npu: Npu, lengths: tuple, heads: int, kv_heads: int, size: int) -> None:
    npu.call(packed, *lengths, heads, kv_heads, size, torch.float16, 0)


@pytest.mark.chips("910B3")
def test_bfloat16(npu: Npu) -> None:
    npu.call(packed, *CHUNKS, 8, 2, 128, torch.bfloat16, 0)


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("window", [1, 16, 200, 1000])
@pytest.mark.parametrize("lengths", [DECODE, CHUNKS], ids=["decode", "chunked prefill"])
def test_sliding_window(npu: Npu, lengths: tuple, window: int) -> None:
    """sparseMode 4 with preTokens window - 1 and nextTokens 0: a query sees itself and window - 1 keys before."""
    npu.call(packed, *lengths, 8, 2, 128, torch.float16, window)


def packed_without_pages() -> None:
    """An encoder's attention: lengths of keys are cumulative too, and sparseMode 0 without a mask hides nothing."""
    torch_npu = setup()
    lengths = [5, 1, 140]
    query, key, value = (torch.randn(sum(lengths), heads, 128).half() for heads in (8, 2, 2))
    ends = torch.tensor(lengths).cumsum(0).tolist()
    out, _ = torch_npu.npu_fused_infer_attention_score(
        *(query.npu(), key.npu(), value.npu()),
        actual_seq_lengths=ends,
        actual_seq_lengths_kv=ends,
        num_heads=8,
        num_key_value_heads=2,
        scale=128**-0.5,
        input_layout="TND",
    )
    parts = zip(query.split(lengths), key.split(lengths), value.split(lengths), strict=True)
    assert_close(out, torch.cat([attend(*part)[0] for part in parts]), "encoder")


@pytest.mark.chips("910B3")
def test_packed_without_pages(npu: Npu) -> None:
    npu.call(packed_without_pages)


def padded_decode(layout: str) -> None:
    """One query a sequence on pages, layouts with a batch dimension; no mask is needed."""
    torch_npu = setup()
    keys = [1, BLOCK, 300]
    pages = Pages(keys, 2, 128, torch.float16)
    query = torch.randn(3, 8, 128).half()
    shape = {"BSND": (3, 1, 8, 128), "BSH": (3, 1, 8 * 128), "BNSD": (3, 8, 1, 128)}[layout]
    out, _ = torch_npu.npu_fused_infer_attention_score(
        query.view(shape).npu(),
        *(pages.key.npu(), pages.value.npu()),
        actual_seq_lengths_kv=keys,
        block_table=pages.table.npu(),
        num_heads=8,
        num_key_value_heads=2,
        scale=128**-0.5,
        input_layout=layout,
        block_size=BLOCK,
    )
    parts = zip(query.split(1), pages.keys, pages.values, strict=True)
    assert_close(out.view(3, 8, 128), torch.cat([attend(*part)[0] for part in parts]), layout)


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("layout", ["BSND", "BSH", "BNSD"])
def test_padded_decode_on_pages(npu: Npu, layout: str) -> None:
    npu.call(padded_decode, layout)


def padded_prefill() -> None:
    """Layout BSND with 40 queries and 70 keys: every sparseMode, with the mask that it asks for."""
    torch_npu = setup()
    queries, keys = 40, 70
    query = torch.randn(2, queries, 8, 64).half()
    key, value = (torch.randn(2, keys, 2, 64).half() for _ in range(2))
    random = torch.rand(queries, keys) < 0.5
    random[:, 0] = True  # no row is empty
    cases = [
        (DEFAULT, (~random).npu(), random, {}),
        (ALL, (~random).npu(), random, {}),
        (LEFT_UP_CAUSAL, compressed_mask(), visible(LEFT_UP_CAUSAL, queries, keys), {}),
        (RIGHT_DOWN_CAUSAL, compressed_mask(), visible(RIGHT_DOWN_CAUSAL, queries, keys), {}),
        (BAND, compressed_mask(), visible(BAND, queries, keys, 9, 4), {"pre_tokens": 9, "next_tokens": 4}),
    ]
    for mode, mask, seen, tokens in cases:
        out, _ = torch_npu.npu_fused_infer_attention_score(
            *(query.npu(), key.npu(), value.npu()),
            atten_mask=mask,
            num_heads=8,
            num_key_value_heads=2,
            scale=64**-0.5,
            input_layout="BSND",
            sparse_mode=mode,
            **tokens,
        )
        expected = torch.stack([attend(query[row], key[row], value[row], seen)[0] for row in range(2)])
        assert_close(out, expected, f"sparse mode {mode}")


@pytest.mark.chips("910B3")
def test_padded_prefill_in_every_sparse_mode(npu: Npu) -> None:
    npu.call(padded_prefill)


def refusals() -> dict[str, str]:
    torch_npu = setup()

    def launch(**changes) -> str:
        size = changes.pop("size", 128)
        arguments = {
            "atten_mask": compressed_mask(),
            "actual_seq_lengths": [4],
            "actual_seq_lengths_kv": [4],
            "block_table": torch.zeros(1, 1, dtype=torch.int32).npu(),
            "num_heads": 2,
            "num_key_value_heads": 2,
            "input_layout": "TND",
            "block_size": BLOCK,
            "sparse_mode": RIGHT_DOWN_CAUSAL,
            **changes,
        }
        query, cache = torch.ones(4, 2, size).half().npu(), torch.ones(2, BLOCK, 2 * size).half().npu()
        return refusal(lambda: torch_npu.npu_fused_infer_attention_score(query, cache, cache, **arguments))

    return {
        "nothing": launch(),
        "left-up causal": launch(sparse_mode=LEFT_UP_CAUSAL),
        "no mask": launch(atten_mask=None),
        "small mask": launch(atten_mask=torch.ones(4, 4, dtype=torch.int8).npu()),
        "mask type": launch(atten_mask=compressed_mask().half()),
        "more queries than keys": launch(actual_seq_lengths_kv=[3]),
        "lengths": launch(actual_seq_lengths=[3]),
        "head size": launch(size=80),
        "block outside": launch(block_table=torch.full((1, 1), 2, dtype=torch.int32).npu()),
    }


@pytest.mark.chips("910B3")
def test_refusals(npu: Npu) -> None:
    said = npu.call(refusals)
    assert said.pop("nothing").startswith("not refused")
    assert not [case for case, text in said.items() if text.startswith("not refused")]


@pytest.mark.chips("310P3")
def test_not_on_atlas_inference(npu: Npu) -> None:
    """Atlas inference products have PromptFlashAttention and IncreFlashAttention, not this operator."""
    assert npu.call(refusals)["nothing"].startswith("not refused") is False
