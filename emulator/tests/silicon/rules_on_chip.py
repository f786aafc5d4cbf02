"""What tests/silicon runs in the process that has the chip: the forms that rules are about, and their neighbours."""

from __future__ import annotations

import math
from typing import Any

import torch
from aclnn.direct import FRACTAL_NZ, Answer, Chip, Tensor

HALF = torch.float16


def call(name: str, /, **given: Any) -> Answer:
    return Chip.get().call(name, **given)


def results(name: str, outputs: tuple[str, ...], /, **given: Any) -> list[torch.Tensor]:
    """The named tensors after a call that must run."""
    chip = Chip.get()
    tensors = {key: Tensor(value) if isinstance(value, torch.Tensor) else value for key, value in given.items()}
    answer = chip.call(name, **tensors)
    assert answer.ran, answer
    return [chip.download(tensors[output]) for output in outputs]


def copy_to_front(count: int, dtype: torch.dtype, to_offset: int = 0) -> tuple[list[Any], list[Any]]:
    """buffer[o : o + count].copy_(source[:count]): the buffer afterwards, and what an exact copy leaves in it."""
    source = torch.arange(1, 257).to(dtype)
    buffer = torch.full((512,), -1).to(dtype)
    expected = buffer.clone()
    expected[to_offset : to_offset + count] = source[:count]
    chip, target = Chip.get(), Tensor(buffer[to_offset : to_offset + count])
    answer = chip.call("InplaceCopy", selfRef=target, src=source[:count])
    assert answer.ran, answer
    whole = Tensor(buffer)
    whole.address = target.address
    return chip.download(whole).tolist(), expected.tolist()


def copy_casting(count: int) -> tuple[list[Any], list[Any]]:
    """As copy_to_front, from int64 to int32: the cast's result goes through a workspace and is copied exactly."""
    source, buffer = torch.arange(1, 257), torch.full((512,), -1, dtype=torch.int32)
    expected = buffer.clone()
    expected[:count] = source[:count]
    chip, target = Chip.get(), Tensor(buffer[:count])
    assert chip.call("InplaceCopy", selfRef=target, src=source[:count]).ran
    whole = Tensor(buffer)
    whole.address = target.address
    return chip.download(whole).tolist(), expected.tolist()


def add(count: int, dtype: torch.dtype) -> Answer:
    ones = torch.ones(count, dtype=dtype)
    return call("Add", self=ones, other=ones, alpha=1, out=torch.zeros(count, dtype=dtype))


def subtract(count: int) -> Answer:
    ones = torch.ones(count, dtype=torch.int64)
    return call("Sub", self=ones, other=ones, alpha=1, out=torch.zeros(count, dtype=torch.int64))


def nz_product(out_dtype: torch.dtype) -> Answer:
    weight = Tensor(torch.zeros(32 * 32, dtype=HALF), [32, 32], [32, 1], 0, [2, 2, 16, 16], format=FRACTAL_NZ)
    out = torch.zeros(4, 32, dtype=out_dtype)
    return call("MatmulWeightNz", self=torch.zeros(4, 32, dtype=HALF), mat2=weight, out=out, cubeMathType=1)


def nz_product_of_equal_rows(depth: int = 1024, width: int = 2048) -> list[list[float]]:
    """A product whose rows of A are all the same."""
    torch.manual_seed(0)
    row = torch.randn(1, depth).to(HALF)
    weight = torch.randn(depth * width).to(HALF)
    stored_sizes = [width // 16, depth // 16, 16, 16]
    stored = Tensor(weight, [depth, width], [width, 1], 0, stored_sizes, format=FRACTAL_NZ)
    given = {"self": row.expand(4, depth).contiguous(), "mat2": stored, "out": torch.zeros(4, width, dtype=HALF)}
    (product,) = results("MatmulWeightNz", ("out",), cubeMathType=1, **given)
    return product.float().tolist()


def gate(tokens: int, experts: int = 16, dtype: torch.dtype = HALF, finished: bool = False) -> Answer:
    return call("MoeGatingTopKSoftmax", **gating_arguments(tokens, experts, dtype, finished))


def gating_arguments(tokens: int, experts: int, dtype: torch.dtype, finished: bool = False) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.stack([torch.randperm(experts, generator=generator) for _ in range(tokens)]).to(dtype)
    return {
        "x": logits,
        "finishedOptional": torch.zeros(tokens, dtype=torch.bool) if finished else None,
        "k": 2,
        "yOut": torch.zeros(tokens, 2, dtype=dtype),
        "expertIdxOut": torch.full((tokens, 2), -1, dtype=torch.int32),
        "rowIdxOut": torch.full((tokens, 2), -1, dtype=torch.int32),
    }


def gated_experts(tokens: int) -> tuple[list[int], list[int]]:
    """Per row whether its experts are those of its largest logits; and rowIdxOut."""
    arguments = gating_arguments(tokens, 16, HALF)
    chosen, rows = results("MoeGatingTopKSoftmax", ("expertIdxOut", "rowIdxOut"), **arguments)
    expected = arguments["x"].float().topk(2).indices
    return (chosen == expected).all(1).int().tolist(), rows.flatten().tolist()


def route(hidden: int, drop_pad_mode: int = 0) -> Answer:
    return call(
        "MoeInitRoutingV2",
        x=torch.zeros(2, hidden, dtype=HALF),
        expertIdx=torch.tensor([[0, 1], [1, 0]], dtype=torch.int32),
        expertNumOptional=2,
        expertCapacityOptional=2 * drop_pad_mode,
        dropPadModeOptional=drop_pad_mode,
        expandedXOut=torch.zeros((2, 2, hidden) if drop_pad_mode else (4, hidden), dtype=HALF),
        expandedRowIdxOut=torch.zeros(4, dtype=torch.int32),
    )


def rotary(query_heads: int, key_heads: int, tokens: int, dtype: torch.dtype, size: int = 128) -> Answer:
    def zeros(heads: int) -> torch.Tensor:
        return torch.zeros(1, tokens, heads, size, dtype=dtype)

    return call("ApplyRotaryPosEmbV2", queryRef=zeros(query_heads), keyRef=zeros(key_heads), cos=zeros(1), sin=zeros(1),
                layout=1, rotaryMode="half")  # fmt: skip


def rotary_of_a_view(contiguous: bool) -> tuple[list[float], list[float]]:
    """Query as a column view of a packed projection (or a copy of it): what it becomes, and what it should."""
    torch.manual_seed(2)
    packed = torch.randn(1, 3, 4, 128).to(HALF)  # two heads of queries, one of keys, one of values
    angle = torch.rand(1, 3, 1, 64)
    cos, sin = (torch.cat([part, part], -1).to(HALF) for part in (angle.cos(), angle.sin()))
    query, key = packed[:, :, :2], packed[:, :, 2:3]
    arguments: dict[str, Any] = {"cos": cos, "sin": sin, "layout": 1, "rotaryMode": "half"}
    given = query.contiguous() if contiguous else query
    (turned,) = results("ApplyRotaryPosEmbV2", ("queryRef",), queryRef=given, keyRef=key.contiguous(), **arguments)
    wide = query.float()
    expected = wide * cos + torch.cat([-wide[..., 64:], wide[..., :64]], -1) * sin
    return turned.float().flatten().tolist(), expected.flatten().tolist()


def random_numbers() -> Answer:
    return call("InplaceUniform", selfRef=torch.zeros(64), **{"from": 0.0, "to": 1.0, "seed": 1, "offset": 0})


def index_copy(sizes: list[int]) -> Answer:
    target = torch.zeros(sizes)
    return call("InplaceIndexCopy", selfRef=target, dim=0, index=torch.tensor([1, 0]), source=target[:2].clone())


def index_put() -> Answer:
    target = torch.zeros(4, 8)
    return call("IndexPutImpl", selfRef=target, indices=[torch.tensor([1, 0])], values=torch.ones(2, 8))


def norm_of(value: float) -> list[list[float]]:
    x = torch.ones(2, 32)
    x[0, 3] = value
    given: dict[str, Any] = {"x": x, "gamma": torch.ones(32), "epsilon": 1e-6}
    (y,) = results("RmsNorm", ("yOut",), yOut=torch.zeros(2, 32), rstdOut=torch.zeros(2, 1), **given)
    return y.tolist()


def overflow() -> dict[str, list[float]]:
    """Results that are infinite or NaN by IEEE, and infinities that are only moved."""
    largest = torch.tensor([6e4, -6e4, 1.0], dtype=HALF)
    (product,) = results("Mul", ("out",), self=largest, other=largest.abs(), out=torch.zeros(3, dtype=HALF))
    (logarithm,) = results("Log", ("out",), self=torch.tensor([0.0, -1.0, 1.0]), out=torch.zeros(3))
    infinite = torch.tensor([math.inf, -math.inf, 2.0])
    (moved,) = results("InplaceCopy", ("selfRef",), selfRef=torch.zeros(3), src=infinite)
    (filled,) = results("InplaceFillScalar", ("selfRef",), selfRef=torch.zeros(2), value=-math.inf)
    return {
        "product": product.float().tolist(),
        "logarithm": logarithm.tolist(),
        "moved": moved.tolist(),
        "filled": filled.tolist(),
    }


def attention(context: int) -> tuple[dict[str, Any], Tensor]:
    dim, block = 128, 128
    output = Tensor(torch.zeros(1, 1, 2 * dim, dtype=HALF))
    cache = torch.zeros(64, block, 2 * dim, dtype=HALF)
    given: dict[str, Any] = {
        "query": torch.zeros(1, 1, 2 * dim, dtype=HALF),
        "key": [cache],
        "value": [cache.clone()],
        "actualSeqLengthsKvOptional": [context],
        "blockTableOptional": torch.arange(64, dtype=torch.int32).view(1, 64),
        "numHeads": 2,
        "scaleValue": 0.1,
        "preTokens": 2147483647,
        "nextTokens": 2147483647,
        "inputLayout": "BSH",
        "numKeyValueHeads": 2,
        "blockSize": block,
        "attentionOut": output,
    }
    return given, output


def attention_workspaces() -> tuple[int, int, int]:
    """Bytes asked for at 100 and at 8,000 tokens, and by GetMaxWorkspaceSize at 100."""
    chip = Chip.get()
    sizes = []
    for context, suffix in ((100, "GetWorkspaceSize"), (8000, "GetWorkspaceSize"), (100, "GetMaxWorkspaceSize")):
        code, _, size = chip.prepare("FusedInferAttentionScoreV3", suffix, **attention(context)[0])
        assert code == 0
        sizes.append(size)
    return sizes[0], sizes[1], sizes[2]


def memory_of_a_freed_workspace() -> list[int]:
    """The values of a tensor that got the workspace's memory between phase 2 and the run."""
    import ctypes

    chip = Chip.get()
    code, executor, size = chip.prepare("FusedInferAttentionScoreV3", **attention(100)[0])
    assert code == 0
    workspace = chip.malloc(size)
    tenant = Tensor(torch.zeros(1024, dtype=torch.uint8))
    tenant.address = workspace
    chip.upload(workspace, tenant.storage())
    launch = chip.operators.aclnnFusedInferAttentionScoreV3
    assert launch(ctypes.c_void_p(workspace), ctypes.c_uint64(size), executor, chip.stream) == 0
    chip.check("aclrtSynchronizeStream", chip.stream)
    return sorted(set(chip.download(tenant).tolist()))


def launch_without_workspace() -> int:
    """The code of a launch that is given no workspace though phase 1 asked for one."""
    import ctypes

    chip = Chip.get()
    code, executor, size = chip.prepare("FusedInferAttentionScoreV3", **attention(100)[0])
    assert code == 0 and size > 0
    launched: int = chip.operators.aclnnFusedInferAttentionScoreV3(None, ctypes.c_uint64(0), executor, chip.stream)
    return launched


def modeled_ns(name: str) -> int:
    """Modelled time of one launch of a form that a rule makes slower (a modelled clock only)."""
    from ascend_emulator import counters

    chip = Chip.get()
    columns = torch.zeros(4, 60_000)
    forms: dict[str, tuple[str, dict[str, Any]]] = {
        "wide_scatter": (
            "InplaceScatter",
            {"selfRef": columns, "dim": 1, "index": torch.zeros(4, 60_000, dtype=torch.int64), "src": columns.clone(),
             "reduce": 0},
        ),
        "narrow scatter": (
            "InplaceScatter",
            {"selfRef": columns[:, :40_000].contiguous(), "dim": 1, "index": torch.zeros(4, 40_000, dtype=torch.int64),
             "src": columns[:, :40_000].contiguous(), "reduce": 0},
        ),
        "int32_sum": (
            "ReduceSum",
            {"self": torch.ones(4, 10_000, dtype=torch.int32), "dims": [1], "keepDims": False, "dtype": 3,
             "out": torch.zeros(4, dtype=torch.int32)},
        ),
        "int64 sum": (
            "ReduceSum",
            {"self": torch.ones(4, 10_000, dtype=torch.int64), "dims": [1], "keepDims": False, "dtype": 9,
             "out": torch.zeros(4, dtype=torch.int64)},
        ),
        "weight_quant_layout": (
            "WeightQuantBatchMatmulV2",
            {"x": torch.zeros(1, 1024, dtype=HALF), "weight": torch.zeros(1024, 1024, dtype=torch.int8),
             "antiquantScale": torch.ones(1024, dtype=HALF), "y": torch.zeros(1, 1024, dtype=HALF)},
        ),
    }  # fmt: skip
    operator, given = forms[name]
    counters.reset_stats()
    answer = chip.call(operator, **given)
    assert answer.ran, answer
    times: dict[str, int] = counters.stats()["modeled_ns"]
    return times[f"aclnn{operator}"]


def attention_over_nothing() -> tuple[list[float], list[float]]:
    """ATB's paged attention for lengths 0 and 3: the rows of an output that held 7 before."""
    import torch_npu

    heads, dim, block = 2, 128, 128
    torch.manual_seed(3)
    query = torch.randn(2, heads, dim).half().npu()
    cache = torch_npu.npu_format_cast(torch.zeros(4, heads * dim // 16, block, 16).half().npu(), FRACTAL_NZ)
    out = torch.full((2, heads, dim), 7.0).half().npu()
    table = torch.tensor([[1, 0], [2, 0]], dtype=torch.int32).npu()
    torch_npu._npu_paged_attention(
        query=query, key_cache=cache, value_cache=cache, num_kv_heads=heads, num_heads=heads, scale_value=0.1,
        block_table=table, context_lens=torch.tensor([0, 3], dtype=torch.int32).npu(), out=out,
    )  # fmt: skip
    rows = out.cpu().float().flatten(1)
    return rows[0].tolist(), rows[1].tolist()
