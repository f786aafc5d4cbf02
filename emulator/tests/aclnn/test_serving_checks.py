"""Serving operators refuse what their tilings refuse, and what would make them read or write beside their tensors.

Most of these come from a fuzzer: they ended in a signal, read another request's keys, or wrote beside an output.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

from .direct import Answer, Chip, Tensor

REFUSED, TILING, FAULT = 161002, 561002, 507015
HALF = torch.float16


def call(name: str, given: dict[str, Any]) -> Answer:
    return Chip.get().call(name, **given)


def call_attention(case: str) -> Answer:
    return call("FusedInferAttentionScoreV3", attention(**ATTENTION[case][0]))


def call_padded(padding: int) -> Answer:
    return call("FusedInferAttentionScoreV3", left_padded(padding))


def call_case(case: str) -> Answer:
    operator, given, _ = CASES[case]
    return call(operator, given)


def half(*sizes: int) -> torch.Tensor:
    return torch.zeros(sizes, dtype=HALF)


def attention(**changes: Any) -> dict[str, Any]:
    """A decode step of three sequences, 70 keys each, two heads of 16, in layout BSND."""
    given: dict[str, Any] = {
        "query": half(3, 1, 2, 16),
        "key": [half(3, 70, 2, 16)],
        "value": [half(3, 70, 2, 16)],
        "numHeads": 2,
        "numKeyValueHeads": 2,
        "scaleValue": 0.25,
        "preTokens": 2147483647,
        "nextTokens": 2147483647,
        "inputLayout": "BSND",
        "attentionOut": half(3, 1, 2, 16),
    }
    return {**given, **changes}


def left_padded(padding: int) -> dict[str, Any]:
    return attention(kvPaddingSizeOptional=torch.tensor([padding]), actualSeqLengthsKvOptional=[60])


ATTENTION: dict[str, tuple[dict[str, Any], str]] = {
    "an empty list of values": ({"value": []}, "at least one"),
    "fewer values than keys": ({"key": [half(1, 70, 2, 16)] * 3, "value": [half(1, 70, 2, 16)]}, "must be equal"),
    "values of fewer tokens": ({"value": [half(3, 64, 2, 16)]}, "batch and the tokens of key"),
    "values of another batch": ({"value": [half(2, 70, 2, 16)]}, "batch and the tokens of key"),
    "keys of one request for three": ({"key": [half(1, 70, 2, 16)], "value": [half(1, 70, 2, 16)]}, "a batch of 1"),
    "keys of no request": ({"key": [half(0, 70, 2, 16)], "value": [half(0, 70, 2, 16)]}, "a batch of 0"),
    "a list whose keys are batches": (
        {"key": [half(3, 70, 2, 16)] * 3, "value": [half(3, 70, 2, 16)] * 3},
        "of the list",
    ),
    "no heads": ({"numHeads": 0, "query": half(3, 1, 0, 16), "attentionOut": half(3, 1, 0, 16)}, "numHeads is 0"),
    "a negative number of key heads": ({"numKeyValueHeads": -1}, "must not be negative"),
    "a bias of other sizes": ({"pseShiftOptional": half(1, 2, 1, 8)}, "pseShift is [1, 2, 1, 8]"),
    "a bias of too few dimensions": ({"pseShiftOptional": half(70)}, "pseShift"),
    "a mask of another batch": ({"attenMaskOptional": torch.zeros(2, 1, 70, dtype=torch.bool)}, "for 2 sequences"),
    "paddings of two elements": ({"kvPaddingSizeOptional": torch.tensor([1, 2])}, "must have one"),
    "a list longer than its tensor": (
        {
            "key": [half(1, 70, 2, 16)] * 3,
            "value": [half(1, 70, 2, 16)] * 3,
            "actualSeqLengthsKvOptional": [71, 70, 70],
        },
        "key has 70 tokens",
    ),
}


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("case", ATTENTION)
def test_fused_attention_refuses(npu: Npu, case: str) -> None:
    answer = npu.call(call_attention, case)
    assert (answer.code, answer.phase) == (TILING, 1), answer
    assert ATTENTION[case][1] in answer.message


@pytest.mark.chips("910B3")
def test_fused_attention_with_a_padding_too_large_fails_on_the_device(npu: Npu) -> None:
    assert npu.call(call_padded, 10).ran
    answer = npu.call(call_padded, 11)
    assert (answer.code, answer.phase) == (FAULT, 2), answer
    assert "kvPaddingSize" in answer.message


def attend_to_lists(layout: str) -> tuple[list[float], list[float]]:
    """Three sequences with keys of their own lengths as a list, and one by one."""
    torch.manual_seed(0)
    lengths, chip = [5, 70, 33], Chip.get()

    def random(sizes: list[int]) -> torch.Tensor:
        return torch.randn(sizes).to(HALF)

    def sizes(length: int, batch: int = 1) -> list[int]:
        return [batch, length, 2, 16] if layout == "BSND" else [batch, 2, length, 16]

    query, keys = random(sizes(1, 3)), [random(sizes(length)) for length in lengths]
    values = [random(sizes(length)) for length in lengths]
    together = Tensor(torch.zeros(sizes(1, 3), dtype=HALF))
    given = attention(query=query, key=keys, value=values, inputLayout=layout, attentionOut=together)
    answer = chip.call("FusedInferAttentionScoreV3", **given)
    assert answer.ran, answer
    alone = []
    for i in range(3):
        one = Tensor(torch.zeros(sizes(1), dtype=HALF))
        given = attention(query=query[i : i + 1].clone(), key=[keys[i]], value=[values[i]], inputLayout=layout,
                          attentionOut=one)  # fmt: skip
        assert chip.call("FusedInferAttentionScoreV3", **given).ran
        alone.append(chip.download(one))
    return chip.download(together).flatten().tolist(), torch.cat(alone).flatten().tolist()


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("layout", ["BSND", "BNSD"])
def test_a_list_of_keys_gives_what_each_key_gives(npu: Npu, layout: str) -> None:
    together, alone = npu.call(attend_to_lists, layout)
    assert together == alone
    assert any(together)


def grouped(bias: torch.Tensor) -> dict[str, Any]:
    return {
        "x": [half(4, 16)],
        "weight": [half(2, 16, 16)],
        "biasOptional": [bias],
        "groupListOptional": torch.tensor([2, 2]),
        "splitItem": 3,
        "groupListType": 1,
        "out": [half(4, 16)],
    }


def routed(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "x": half(2, 32),
        "expertIdx": torch.tensor([[0, 1], [1, 0]], dtype=torch.int32),
        "expertNumOptional": 2,
        "expandedXOut": half(4, 32),
        "expandedRowIdxOut": torch.zeros(4, dtype=torch.int32),
    }
    return {**given, **changes}


def scattered(dtype: torch.dtype, tokens: int = 4) -> dict[str, Any]:
    def zeros(*sizes: int) -> torch.Tensor:
        return torch.zeros(sizes, dtype=dtype)

    return {
        "key": zeros(tokens, 2, 32),
        "keyCacheRef": zeros(2, 16, 2, 32),
        "slotMapping": torch.arange(tokens, dtype=torch.int32),
        "value": zeros(tokens, 2, 32),
        "valueCacheRef": zeros(2, 16, 2, 32),
        "cacheModeOptional": "Norm",
    }


def rotated(key: tuple[int, ...], cos: tuple[int, ...]) -> dict[str, Any]:
    tables = {"cos": half(*cos), "sin": half(*cos)}
    return {"queryRef": half(2, 3, 4, 128), "keyRef": half(*key), **tables, "layout": 1, "rotaryMode": "half"}


CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "a bias of too few groups": ("GroupedMatmulV5", grouped(half(1, 7)), "bias has sizes [1, 7]"),
    "rows that grow": (
        "MoeTokenPermute",
        {
            "tokens": half(2, 16),
            "indices": torch.tensor([[0, 1], [1, 0]]),
            "permuteTokensOut": half(4, 8),
            "sortedIndicesOut": torch.zeros(4, dtype=torch.int32),
        },
        "permuteTokensOut is 8 wide",
    ),
    "an output of another type": (
        "RopeWithSinCosCache",
        {
            "positions": torch.tensor([0, 1]),
            "queryIn": torch.zeros(2, 64),
            "keyIn": torch.zeros(2, 64),
            "cosSinCache": torch.zeros(8, 64),
            "headSize": 64,
            "isNeoxStyle": True,
            "queryOut": half(2, 64),
            "keyOut": half(2, 64),
        },
        "queryOut and keyOut",
    ),
    "scales without columns": (
        "MoeFinalizeRoutingV2",
        {
            "expandedX": half(5, 32),
            "expandedRowIdx": torch.zeros(5, dtype=torch.int32),
            "scalesOptional": half(5, 0),
            "dropPadMode": 2,
            "out": half(5, 32),
        },
        "scales has no columns",
    ),
    "two thousand million experts": ("MoeInitRoutingV2", routed(expertNumOptional=2**31), "must be 0 to 10240"),
    "rows of another width": ("MoeInitRoutingV2", routed(expandedXOut=half(4, 16)), "expandedXOut is 16 wide"),
    "a cache of float32": ("ScatterPaKvCache", scattered(torch.float32), "key is float32"),
    "no tokens to cache": ("ScatterPaKvCache", scattered(HALF, 0), "empty tensors"),
    "cosines of one request": ("ApplyRotaryPosEmbV2", rotated((2, 3, 1, 128), (1, 3, 1, 128)), "dimension 0"),
    "cosines of one position": ("ApplyRotaryPosEmbV2", rotated((2, 3, 1, 128), (2, 1, 1, 128)), "dimension 1"),
    "keys of another sequence": ("ApplyRotaryPosEmbV2", rotated((5, 7, 1, 128), (1, 1, 1, 128)), "dimension 0"),
    "filtering integers": (
        "ApplyTopKTopP",
        {"logits": torch.ones(1, 4, dtype=torch.int32), "k": torch.ones(1, dtype=torch.int32),
         "out": torch.ones(1, 4, dtype=torch.int32)},
        "logits is int32",
    ),
}  # fmt: skip


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("case", CASES)
def test_it_refuses(npu: Npu, case: str) -> None:
    answer = npu.call(call_case, case)
    assert (answer.code, answer.phase) == (REFUSED, 1), answer
    assert CASES[case][2] in answer.message


def call_what_is_right() -> dict[str, Answer]:
    calls = (
        ("FusedInferAttentionScoreV3", attention()),
        ("FusedInferAttentionScoreV4", attention(softmaxLse=torch.zeros(3, 2, 1, 1, dtype=torch.bool))),  # unwanted
        ("GroupedMatmulV5", grouped(half(2, 16))),
        ("MoeInitRoutingV2", routed()),
        ("ScatterPaKvCache", scattered(HALF)),
        ("ApplyRotaryPosEmbV2", rotated((2, 3, 1, 128), (2, 3, 1, 128))),
    )
    return {operator: call(operator, given) for operator, given in calls}


@pytest.mark.chips("910B3")
def test_what_they_allow_runs(npu: Npu) -> None:
    assert [answer for answer in npu.call(call_what_is_right).values() if not answer.ran] == []


def keep_largest(counts: list[int]) -> list[list[float]]:
    chip, out = Chip.get(), Tensor(torch.zeros(len(counts), 4))
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).repeat(len(counts), 1)
    answer = chip.call("ApplyTopKTopP", logits=logits, k=torch.tensor(counts, dtype=torch.int32), out=out)
    assert answer.ran, answer
    result: list[list[float]] = chip.download(out).tolist()
    return result


@pytest.mark.chips("910B3")
def test_top_k_of_none_keeps_all(npu: Npu) -> None:
    """k <= 0 or k >= the number of logits filters nothing (document; it kept one token here)."""
    whole, none = [1.0, 2.0, 3.0, 4.0], float("-inf")
    assert npu.call(keep_largest, [0, -1, 4, 9, 2]) == [whole, whole, whole, whole, [none, none, 3.0, 4.0]]


def launch_twice() -> tuple[int, str]:
    import ctypes

    chip = Chip.get()
    code, executor, _ = chip.prepare("Abs", self=torch.ones(4), out=torch.zeros(4))
    assert code == 0
    for _ in range(2):
        code = chip.operators.aclnnAbs(None, ctypes.c_uint64(0), executor, chip.stream)
    return code, chip._message()


def test_an_executor_is_used_once(npu: Npu) -> None:
    code, message = npu.call(launch_twice)
    assert code == 161001
    assert "was used already" in message
