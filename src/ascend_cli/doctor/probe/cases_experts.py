"""Mixture of experts: gating, routing, grouped products with experts that get no row."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from ascend_cli.doctor.probe.bench import Bench
from ascend_cli.doctor.probe.case import Case, WrongResult
from ascend_facts.chips import ChipSpec

NZ = 29
GATED_ROWS = (1, 16, 1024, 1025, 2048)


def experts(chip: ChipSpec) -> Iterator[Case]:
    for tokens in GATED_ROWS:
        rule = "moe_gating_rows" if tokens > 1024 else ""
        yield Case(f"npu_moe_gating_top_k_softmax, {tokens} tokens", partial(gate, tokens, 16, "float16"), rule)
    yield Case("npu_moe_gating_top_k_softmax, row index", row_index, "moe_gating_row_index")
    for count, dtype in ((128, "float16"), (256, "float16")):
        yield Case(f"npu_moe_gating_top_k_softmax, {count} experts", partial(gate, 7, count, dtype))
    for count, dtype in ((16, "float32"), (24, "float16"), (272, "float16")):
        case = partial(gate, 7, count, dtype)
        yield Case(f"npu_moe_gating_top_k_softmax, {count} experts, {dtype}", case, "moe_gating_limits")
    yield Case("npu_moe_init_routing_v2, 64 wide", partial(route, 64))
    yield Case("npu_moe_init_routing_v2, 48 wide", partial(route, 48), "moe_routing_width")
    yield Case("npu_grouped_matmul, experts without rows", partial(grouped, False))
    yield Case("npu_grouped_matmul, rows of no expert", partial(grouped, True), may_be_refused=True)
    yield Case("softmax and topk of float32 logits", composed)


def gate(tokens: int, count: int, dtype: str, bench: Bench) -> None:
    import torch_npu

    generator = torch.Generator().manual_seed(tokens)
    logits = torch.stack([torch.randperm(count, generator=generator) for _ in range(tokens)]) / count * 4
    logits = logits.to(getattr(torch, dtype))
    weights, ids = torch_npu.npu_moe_gating_top_k_softmax(bench.put(logits), None, 2)[:2]
    exact, chosen = logits.double().softmax(-1).topk(2)
    bench.same(ids, chosen.to(torch.int32), "experts")
    bench.close(weights, exact)


def row_index(bench: Bench) -> None:
    import torch_npu

    logits = torch.stack([torch.randperm(16) for _ in range(3)]).half()
    rows = torch_npu.npu_moe_gating_top_k_softmax(bench.put(logits), None, 2)[2].cpu()
    if rows.flatten().tolist() != [0, 3, 1, 4, 2, 5]:
        raise WrongResult(f"the index of rows is {rows.flatten().tolist()}, by the document [0, 3, 1, 4, 2, 5]")


def route(width: int, bench: Bench) -> None:
    import torch_npu

    x, ids = bench.randn(5, width), torch.tensor([[0, 3], [3, 1], [2, 0], [1, 3], [0, 1]], dtype=torch.int32)
    rows, row_of, tokens_of, _ = torch_npu.npu_moe_init_routing_v2(
        bench.put(x), bench.put(ids), active_num=10, expert_num=4, drop_pad_mode=0, expert_tokens_num_type=1,
        expert_tokens_num_flag=True, quant_mode=-1, active_expert_range=[0, 4], row_idx_type=0,
    )  # fmt: skip
    order = ids.flatten().sort(stable=True).indices
    bench.same(rows, x[order // 2])
    bench.same(rows.index_select(0, row_of).view(5, 2, width), x.unsqueeze(1).expand(5, 2, width).contiguous())
    counts = torch.bincount(ids.flatten(), minlength=4)
    totals = counts.cumsum(0) if tokens_of.dtype == torch.int32 else counts
    bench.same(tokens_of.to(torch.int64), totals)


def grouped(leaves_out: bool, bench: Bench) -> None:
    """Rows sorted by expert times each expert's weights; those behind the last one's are nobody's."""
    import torch_npu

    counts, width, inner = [3, 0, 5, 9], 64, 96
    rows = sum(counts) + (4 if leaves_out else 0)
    x, weight = bench.randn(rows, width), bench.randn(4, width, inner) / 8
    there = bench.put(weight)
    if bench.chip.weight_format == "nz":
        there = torch_npu.npu_format_cast(there, NZ)
    totals = bench.put(torch.tensor(counts).cumsum(0))
    found = torch_npu.npu_grouped_matmul(
        [bench.put(x)], [there], group_list=totals, split_item=2, group_type=0, group_list_type=0
    )[0]
    parts = [row.double() @ each.double() for row, each in zip(x[: sum(counts)].split(counts), weight, strict=True)]
    bench.close(found[: sum(counts)], torch.cat(parts))


def composed(bench: Bench) -> None:
    logits = bench.randn(9, 512, dtype=torch.float32)
    weights, ids = torch.topk(bench.put(logits).softmax(dim=-1), 8, dim=-1)
    exact = logits.double().softmax(-1)
    bench.close(weights, exact.topk(8).values)
    bench.close(exact.gather(1, ids.cpu()), exact.topk(8).values, 1e-6)
