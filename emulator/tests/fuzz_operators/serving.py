"""Nearly valid calls of the operators that serve language models: right in form, then changed in one or two places."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from aclnn.direct import FRACTAL_NZ, Tensor

HALF, BRAIN, FULL = torch.float16, torch.bfloat16, torch.float32
INT8, INT32, INT64, BOOL = torch.int8, torch.int32, torch.int64, torch.bool
Call = tuple[str, dict[str, Any]]
FOREVER = 2147483647


def zeros(*sizes: int, dtype: torch.dtype = HALF) -> Tensor:
    return Tensor(torch.zeros(sizes, dtype=dtype), at_page_end=True)


def holding(values: Any, dtype: torch.dtype) -> Tensor:
    return Tensor(torch.tensor(values, dtype=dtype), at_page_end=True)


def fractal(*sizes: int, dtype: torch.dtype = HALF) -> Tensor:
    """A FRACTAL_NZ tensor of zeros."""
    c0 = 32 if dtype.itemsize == 1 else 16
    columns, rows = -(-sizes[-1] // c0), -(-sizes[-2] // 16)
    stored = [*sizes[:-2], columns, rows, 16, c0]
    strides = [1]
    for size in reversed(sizes[1:]):
        strides.insert(0, strides[0] * size)
    value = torch.zeros(torch.Size(stored).numel(), dtype=dtype)
    return Tensor(value, list(sizes), strides, 0, stored, format=FRACTAL_NZ, at_page_end=True)


def attention(draw: random.Random) -> Call:
    layout = draw.choice(["BSH", "BSND", "BNSD", "TND"])
    heads, groups, dim, batch = (
        draw.choice([1, 2, 4]),
        draw.choice([1, 2]),
        draw.choice([64, 128]),
        draw.choice([1, 2, 3]),
    )
    kv_heads, dtype = max(1, heads // groups), draw.choice([HALF, BRAIN])
    decoding = draw.random() < 0.5
    queries = [1 if decoding else draw.choice([1, 3, 17]) for _ in range(batch)]
    keys = [draw.choice([queries[i], 20, 70]) for i in range(batch)]
    keys = [max(key, query) for key, query in zip(keys, queries, strict=True)]
    longest = max(queries)

    def rows(tokens: int, count: int, of: int = batch) -> Tensor:
        shapes = {"BSH": (of, tokens, count * dim), "BSND": (of, tokens, count, dim), "BNSD": (of, count, tokens, dim)}
        return zeros(*shapes[layout], dtype=dtype)

    given: dict[str, Any] = {
        "numHeads": heads, "numKeyValueHeads": kv_heads, "scaleValue": 0.1, "preTokens": FOREVER, "nextTokens": FOREVER,
        "inputLayout": layout, "sparseMode": 0, "softmaxLseFlag": draw.random() < 0.2,
    }  # fmt: skip
    if layout == "TND":
        given["query"] = zeros(sum(queries), heads, dim, dtype=dtype)
        given["attentionOut"] = zeros(sum(queries), heads, dim, dtype=dtype)
        given["actualSeqLengthsOptional"] = [sum(queries[: i + 1]) for i in range(batch)]
    else:
        given["query"], given["attentionOut"] = rows(longest, heads), rows(longest, heads)
        given["actualSeqLengthsOptional"] = queries
    if draw.random() < 0.5:
        block, width, blocks = 128, 2, 6
        shape = draw.choice([(blocks, block, kv_heads * dim), (blocks, kv_heads, block, dim)])
        cached = draw.choice([dtype, dtype, INT8])
        given["key"], given["value"] = [zeros(*shape, dtype=cached)], [zeros(*shape, dtype=cached)]
        given["blockTableOptional"] = holding(
            [[draw.randrange(blocks) for _ in range(width)] for _ in range(batch)], INT32
        )
        given["blockSize"], given["actualSeqLengthsKvOptional"] = block, keys
        if cached == INT8:
            given["keyAntiquantScaleOptional"] = zeros(kv_heads * dim, dtype=dtype)
            given["valueAntiquantScaleOptional"] = zeros(kv_heads * dim, dtype=dtype)
    elif layout == "TND":
        given["key"], given["value"] = ([zeros(sum(keys), kv_heads, dim, dtype=dtype)] for _ in range(2))
        given["actualSeqLengthsKvOptional"] = [sum(keys[: i + 1]) for i in range(batch)]
    elif draw.random() < 0.3:
        given["key"] = [rows(key, kv_heads, 1) for key in keys]
        given["value"] = [rows(key, kv_heads, 1) for key in keys]
    else:
        given["key"], given["value"] = [rows(max(keys), kv_heads)], [rows(max(keys), kv_heads)]
        given["actualSeqLengthsKvOptional"] = keys
    if draw.random() < 0.3:
        given.update(
            sparseMode=draw.choice([2, 3, 4]), attenMaskOptional=zeros(2048, 2048, dtype=draw.choice([INT8, BOOL]))
        )
    elif draw.random() < 0.2:
        given["attenMaskOptional"] = zeros(batch, longest, max(keys), dtype=BOOL)
    if given["softmaxLseFlag"]:
        sizes = (sum(queries), heads, 1) if layout == "TND" else (batch, heads, longest, 1)
        given["softmaxLse"] = zeros(*sizes, dtype=FULL)
    if draw.random() < 0.15:
        given["pseShiftOptional"] = zeros(1, heads, longest, 256, dtype=dtype)
    if draw.random() < 0.1:
        given["queryPaddingSizeOptional"] = holding([draw.choice([0, 1, 100, -5])], INT64)
        given["kvPaddingSizeOptional"] = holding([draw.choice([0, 1, 100, -5])], INT64)
    if draw.random() < 0.1:
        given["learnableSinkOptional"] = zeros(heads, dtype=FULL)
        return "FusedInferAttentionScoreV4", given
    return "FusedInferAttentionScoreV3", given


def grouped_product(draw: random.Random) -> Call:
    groups, rows = draw.choice([1, 2, 5]), draw.choice([1, 4, 17])
    inner, columns = draw.choice([16, 64, 33]), draw.choice([16, 48, 33])
    dtype = draw.choice([HALF, BRAIN, FULL, INT8])
    counts = [0] * groups
    for _ in range(rows):
        counts[draw.randrange(groups)] += 1
    by_count = draw.choice([0, 1])
    weight = fractal if draw.random() < 0.3 and dtype != FULL else zeros
    given: dict[str, Any] = {
        "x": [zeros(rows, inner, dtype=dtype)],
        "weight": [weight(groups, inner, columns, dtype=dtype)],
        "groupListOptional": holding(counts if by_count else [sum(counts[: i + 1]) for i in range(groups)], INT64),
        "splitItem": 3,
        "groupListType": by_count,
        "out": [zeros(rows, columns, dtype=HALF if dtype == INT8 else dtype)],
    }
    if dtype == INT8:
        given["scaleOptional"] = [zeros(groups, columns, dtype=FULL)]
        given["perTokenScaleOptional"] = [zeros(rows, dtype=FULL)]
    elif draw.random() < 0.3:
        given["biasOptional"] = [zeros(groups, columns, dtype=FULL if dtype == BRAIN else dtype)]
    return "GroupedMatmulV5", given


def quantized_product(draw: random.Random) -> Call:
    rows, inner, columns = draw.choice([1, 3, 16, 65]), draw.choice([32, 64, 96, 33]), draw.choice([16, 64, 65])
    transposed = draw.random() < 0.4
    sizes = (columns, inner) if transposed else (inner, columns)
    nz = draw.random() < 0.6
    given = {
        "x1": zeros(rows, inner, dtype=INT8),
        "x2": (fractal if nz else zeros)(*sizes, dtype=INT8),
        "x1Scale": zeros(rows, dtype=FULL) if draw.random() < 0.6 else None,
        "x2Scale": zeros(draw.choice([1, columns]), dtype=draw.choice([FULL, INT64, BRAIN])),
        "bias": zeros(columns, dtype=INT32) if draw.random() < 0.3 else None,
        "transposeX2": transposed,
        "out": zeros(rows, columns, dtype=draw.choice([HALF, BRAIN, INT8])),
    }
    return ("QuantMatmulWeightNz" if nz else "QuantMatmulV5"), given


def experts(draw: random.Random) -> Call:
    rows, hidden, k, count = draw.choice([1, 5, 33]), draw.choice([32, 64]), draw.choice([1, 2, 4]), draw.choice([4, 8])
    slots, dtype = rows * k, draw.choice([HALF, BRAIN, FULL])
    chosen = [[draw.randrange(count) for _ in range(k)] for _ in range(rows)]
    order = draw.sample(range(slots), slots)
    match draw.randrange(6):
        case 0:
            return "MoeInitRoutingV2", {
                "x": zeros(rows, hidden, dtype=dtype), "expertIdx": holding(chosen, INT32), "expertNumOptional": count,
                "expertTokensCountOrCumsumFlagOptional": draw.choice([0, 1, 2]),
                "expandedXOut": zeros(slots, hidden, dtype=dtype), "expandedRowIdxOut": zeros(slots, dtype=INT32),
                "expertTokensCountOrCumsumOutOptional": zeros(count, dtype=INT32),
            }  # fmt: skip
        case 1:
            first = draw.choice([0, 2])
            return "MoeInitRoutingV3", {
                "x": zeros(rows, hidden, dtype=dtype), "expertIdx": holding(chosen, INT32), "activeNum": slots,
                "expertNum": count, "expertTokensNumType": draw.choice([1, 2]), "expertTokensNumFlag": True,
                "quantMode": draw.choice([-1, 1]), "activeExpertRangeOptional": [first, count],
                "rowIdxType": draw.choice([0, 1]), "expandedXOut": zeros(slots, hidden, dtype=dtype),
                "expandedRowIdxOut": zeros(slots, dtype=INT32),
                "expertTokensCountOrCumsumOut": zeros(count - first, dtype=INT64),
                "expandedScaleOut": zeros(slots, dtype=FULL),
            }  # fmt: skip
        case 2:
            return "MoeTokenPermute", {
                "tokens": zeros(rows, hidden, dtype=dtype), "indices": holding(chosen, INT64),
                "permuteTokensOut": zeros(slots, hidden, dtype=dtype), "sortedIndicesOut": zeros(slots, dtype=INT32),
            }  # fmt: skip
        case 3:
            return "MoeTokenUnpermute", {
                "permutedTokens": zeros(slots, hidden, dtype=dtype), "sortedIndices": holding(order, INT32),
                "probsOptional": zeros(rows, k, dtype=dtype), "out": zeros(rows, hidden, dtype=dtype),
            }  # fmt: skip
        case 4:
            return "MoeFinalizeRoutingV2", {
                "expandedX": zeros(slots, hidden, dtype=dtype), "expandedRowIdx": holding(order, INT32),
                "scalesOptional": zeros(rows, k, dtype=dtype), "expertIdxOptional": holding(chosen, INT32),
                "biasOptional": zeros(count, hidden, dtype=dtype), "dropPadMode": draw.choice([0, 2]),
                "out": zeros(rows, hidden, dtype=dtype),
            }  # fmt: skip
    return "MoeGatingTopK", {
        "x": zeros(rows, 64, dtype=dtype), "k": k, "kGroup": draw.choice([1, 2]), "groupCount": draw.choice([1, 2, 4]),
        "groupSelectMode": draw.choice([0, 1]), "normType": draw.choice([0, 1]), "routedScalingFactor": 1.0,
        "yOut": zeros(rows, k, dtype=dtype), "expertIdxOut": zeros(rows, k, dtype=INT32),
        "outOut": zeros(rows, 64, dtype=FULL),
    }  # fmt: skip


def cache_and_rotary(draw: random.Random) -> Call:
    tokens, heads, dim, blocks, block = draw.choice([1, 4, 9]), draw.choice([1, 2, 4]), 64, draw.choice([2, 5]), 16
    dtype = draw.choice([HALF, BRAIN, INT8])
    if draw.random() < 0.5:
        nz, c0 = draw.random() < 0.4, 32 if dtype == INT8 else 16
        shape = (blocks, heads * dim // c0, block, c0) if nz else (blocks, block, heads, dim)
        slots = [draw.choice([-1, draw.randrange(blocks * block)]) for _ in range(tokens)]
        return "ScatterPaKvCache", {
            "key": zeros(tokens, heads, dim, dtype=dtype), "keyCacheRef": zeros(*shape, dtype=dtype),
            "slotMapping": holding(slots, draw.choice([INT32, INT64])), "value": zeros(tokens, heads, dim, dtype=dtype),
            "valueCacheRef": zeros(*shape, dtype=dtype), "cacheModeOptional": "PA_NZ" if nz else "Norm",
        }  # fmt: skip
    if draw.random() < 0.5:
        return "ApplyRotaryPosEmbV2", {
            "queryRef": zeros(1, tokens, heads, dim), "keyRef": zeros(1, tokens, 1, dim),
            "cos": zeros(1, tokens, 1, dim), "sin": zeros(1, tokens, 1, dim), "layout": 1, "rotaryMode": "half",
        }  # fmt: skip
    return "RopeWithSinCosCache", {
        "positions": holding([draw.randrange(32) for _ in range(tokens)], INT64), "queryIn": zeros(tokens, heads * 64),
        "keyIn": zeros(tokens, 64), "cosSinCache": zeros(32, 64), "headSize": 64, "isNeoxStyle": draw.random() < 0.5,
        "queryOut": zeros(tokens, heads * 64), "keyOut": zeros(tokens, 64),
    }  # fmt: skip


def indexed(draw: random.Random) -> Call:
    rows, columns, count = draw.choice([4, 9, 33]), draw.choice([3, 8]), draw.choice([1, 5])
    positions = [draw.randrange(rows) for _ in range(count)]
    dtype, kind = draw.choice([HALF, FULL, INT32]), draw.choice([INT32, INT64])
    table, picked = zeros(rows, columns, dtype=dtype), zeros(count, columns, dtype=dtype)
    index, square = holding(positions, INT64), holding([[position] * columns for position in positions], INT64)
    forms: dict[str, dict[str, Any]] = {
        "IndexSelect": {"self": table, "dim": 0, "index": holding(positions, kind), "out": picked},
        "Embedding": {"weight": table, "indices": holding(positions, kind), "out": picked},
        "Gather": {"self": table, "dim": 0, "index": square, "out": picked},
        "Scatter": {"self": table, "dim": 0, "index": square, "src": picked, "out": zeros(rows, columns, dtype=dtype)},
        "InplaceScatter": {"selfRef": table, "dim": 0, "index": square, "src": picked},
        "Index": {"self": table, "indices": [index], "out": picked},
        "IndexPutImpl": {"selfRef": table, "indices": [index], "values": picked},
        "InplaceIndexCopy": {"selfRef": table, "dim": 0, "index": index, "source": picked},
        "ScatterNdUpdate": {"varRef": table, "indices": holding([[each] for each in positions], kind),
                            "updates": picked},
        "InplaceScatterUpdate": {"data": zeros(count, rows, 4, dtype=dtype), "indices": holding(positions, kind),
                                 "updates": zeros(count, 1, 4, dtype=dtype), "axis": 1},
        "ApplyTopKTopP": {"logits": zeros(count, rows), "p": zeros(count),
                          "k": holding([draw.choice([0, 1, rows, -1]) for _ in range(count)], INT32),
                          "out": zeros(count, rows)},
    }  # fmt: skip
    name = draw.choice(list(forms))
    return name, forms[name]


def norms_and_products(draw: random.Random) -> Call:
    rows, width, dtype = draw.choice([1, 7]), draw.choice([16, 100, 256]), draw.choice([HALF, BRAIN, FULL])

    def matrix(columns: int = width, of: torch.dtype = dtype) -> Tensor:
        return zeros(rows, columns, dtype=of)

    forms: dict[str, dict[str, Any]] = {
        "RmsNorm": {"x": matrix(), "gamma": zeros(width, dtype=dtype), "epsilon": 1e-6, "yOut": matrix(),
                    "rstdOut": matrix(1, FULL)},
        "AddRmsNorm": {"x1": matrix(), "x2": matrix(), "gamma": zeros(width, dtype=dtype), "epsilon": 1e-6,
                       "yOut": matrix(), "rstdOut": matrix(1, FULL), "xOut": matrix()},
        "SwiGlu": {"x": matrix(2 * width), "dim": -1, "out": matrix()},
        "DynamicQuantV2": {"x": matrix(width, HALF), "dstType": 2, "yOut": matrix(width, INT8),
                           "scaleOut": zeros(rows, dtype=FULL)},
        "MatmulWeightNz": {"self": matrix(64, HALF), "mat2": fractal(64, 48), "out": matrix(48, HALF)},
        "WeightQuantBatchMatmulV2": {"x": matrix(64, HALF), "weight": zeros(64, 32, dtype=INT8),
                                     "antiquantScale": zeros(32), "y": matrix(32, HALF)},
    }  # fmt: skip
    name = draw.choice(list(forms))
    return name, forms[name]


MAKERS: tuple[Callable[[random.Random], Call], ...] = (
    attention, attention, grouped_product, quantized_product, experts, experts, cache_and_rotary, indexed,
    norms_and_products,
)  # fmt: skip


def call(seed: int) -> Call:
    draw = random.Random(seed)
    name, given = draw.choice(MAKERS)(draw)
    for _ in range(draw.choice([0, 1, 1, 1, 2])):
        change(draw, given)
    return name, given


def change(draw: random.Random, given: dict[str, Any]) -> None:
    name = draw.choice(list(given))
    value = given[name]
    if isinstance(value, list) and value and isinstance(value[0], Tensor):
        if draw.random() < 0.2:
            given[name] = value[:-1] if draw.random() < 0.5 else value * 2
            return
        position = draw.randrange(len(value))
        given[name] = [*value[:position], changed(draw, value[position]), *value[position + 1 :]]
    elif isinstance(value, Tensor):
        given[name] = None if draw.random() < 0.08 else changed(draw, value)
    elif isinstance(value, list) and value:
        value[draw.randrange(len(value))] = draw.choice([-1, 0, 1, 5, 71, 2**31, 2**40])
    elif isinstance(value, bool):
        given[name] = not value
    elif isinstance(value, int):
        given[name] = draw.choice([-1, 0, 1, 2, 3, 7, 64, 2**31 - 1, 2**31])
    elif isinstance(value, str):
        given[name] = draw.choice(["", "BSH", "TND", "BNSD_BSND", "NONE", "PA_NZ"])


def changed(draw: random.Random, tensor: Tensor) -> Tensor:
    """The tensor with another size somewhere, one dimension more or less, or another type."""
    sizes = list(tensor.value.size() if tensor.sizes is None else tensor.sizes)
    dtype = tensor.value.dtype
    match draw.randrange(4):
        case 0 | 1 if sizes:
            sizes[draw.randrange(len(sizes))] = draw.choice([0, 1, 2, 3, 7, 16, 17, 64, 128, sizes[0] + 1])
        case 2:
            sizes = sizes[1:] if draw.random() < 0.5 and sizes else [*sizes, 1]
        case _:
            dtype = draw.choice([HALF, BRAIN, FULL, INT8, INT32, INT64, BOOL])
    if torch.Size(sizes).numel() > 1 << 23:
        return tensor
    if tensor.format == FRACTAL_NZ and len(sizes) >= 2:
        return fractal(*sizes, dtype=dtype)
    return zeros(*sizes, dtype=dtype)
