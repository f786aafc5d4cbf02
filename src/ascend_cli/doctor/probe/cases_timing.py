"""What things take on this chip: an empty operator, copies, products, attention. Facts, not judgements."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from ascend_cli.doctor.probe.bench import Bench
from ascend_cli.doctor.probe.case import Case
from ascend_facts.chips import ChipSpec

NZ = 29
COPY_BYTES = (4 << 10, 1 << 20, 64 << 20)
PRODUCT_ROWS = (1, 16, 128)
PRODUCT_WIDTHS = ((1024, 3072), (4096, 4096))


def timing(chip: ChipSpec) -> Iterator[Case]:
    yield Case("an empty operator", empty)
    for size in COPY_BYTES:
        yield Case(f"a copy of {size >> 10} KiB", partial(copied, size))
    yield Case("an upload of 16 MiB", uploaded)
    for width in PRODUCT_WIDTHS:
        for rows in PRODUCT_ROWS:
            yield Case(f"a product of {rows} rows, {width[0]} to {width[1]}", partial(product, rows, width))
    for keys in (128, 2048):
        yield Case(f"attention of 8 sequences over {keys} keys", partial(attention, keys))
    yield Case("events and streams that are left", available)


def empty(bench: Bench) -> None:
    """One element: what the device takes for a launch, and how fast the host issues them."""
    x = torch.zeros(1, device=bench.device)
    bench.facts["launch_us"] = round(bench.timed(lambda: x.add_(1.0), 100), 3)
    bench.facts["launch_host_us"] = round(bench.waited(lambda: x.add_(1.0)), 3)


def copied(size: int, bench: Bench) -> None:
    source = torch.zeros(size // 2, dtype=torch.float16, device=bench.device)
    target = torch.empty_like(source)
    time_us = bench.timed(lambda: target.copy_(source))
    bench.facts[f"copy_{size >> 10}_kib_us"] = round(time_us, 3)
    if size == max(COPY_BYTES) and time_us > 0:
        bench.facts["bandwidth_gbps"] = round(2 * size / time_us / 1e3, 1)  # read and written


def uploaded(bench: Bench) -> None:
    size = 16 << 20
    source = torch.zeros(size, dtype=torch.uint8).pin_memory()
    target = torch.empty(size, dtype=torch.uint8, device=bench.device)
    time_us = bench.timed(lambda: target.copy_(source, non_blocking=True), 3)
    if time_us > 0:
        bench.facts["upload_gbps"] = round(size / time_us / 1e3, 2)


def product(rows: int, width: tuple[int, int], bench: Bench) -> None:
    import torch_npu

    weight = torch.ones(width[1], width[0], dtype=bench.half, device=bench.device)
    if bench.chip.weight_format == "nz":
        weight = torch_npu.npu_format_cast(weight, NZ)
    x = torch.ones(rows, width[0], dtype=bench.half, device=bench.device)
    time_us = bench.timed(lambda: torch.nn.functional.linear(x, weight))
    bench.facts["products_us"] = [[rows, *width, round(time_us, 2)]]


def attention(keys: int, bench: Bench) -> None:
    import torch_npu

    heads, kv_heads, size, block, sequences = 16, 8, 128, 128, 8
    blocks = -(-keys // block)
    table = torch.arange(sequences * blocks, dtype=torch.int32).view(sequences, blocks).to(bench.device)
    q = torch.ones(sequences, heads, size, dtype=bench.half, device=bench.device)
    out = torch.empty_like(q)
    if bench.chip.attention == "paged_nz":
        shape = (sequences * blocks, kv_heads * size // 16, block, 16)
        cache = torch_npu.npu_format_cast(torch.ones(shape, dtype=torch.float16, device=bench.device), NZ)
        lengths = torch.full((sequences,), keys, dtype=torch.int32, device=bench.device)
        time_us = bench.timed(
            lambda: torch_npu._npu_paged_attention(
                query=q, key_cache=cache, value_cache=cache, num_kv_heads=kv_heads, num_heads=heads,
                scale_value=size**-0.5, block_table=table, context_lens=lengths, out=out,
            )
        )  # fmt: skip
    else:
        cache = torch.ones(sequences * blocks, block, kv_heads * size, dtype=bench.half, device=bench.device)
        lse = torch.empty(1, dtype=torch.float32, device=bench.device)
        mask = torch.ones(2048, 2048, dtype=torch.int8).triu_(1).to(bench.device)
        time_us = bench.timed(
            lambda: torch_npu.npu_fused_infer_attention_score.out(
                q, cache, cache, atten_mask=mask, actual_seq_lengths=list(range(1, sequences + 1)),
                actual_seq_lengths_kv=[keys] * sequences, block_table=table, num_heads=heads,
                num_key_value_heads=kv_heads, scale=size**-0.5, input_layout="TND", block_size=block, sparse_mode=3,
                out=[out, lse],
            )
        )  # fmt: skip
    bench.facts["attention_us"] = [[sequences, keys, heads, kv_heads, size, round(time_us, 2)]]


def available(bench: Bench) -> None:
    from ascend_plugin.graphs.events import available_events

    count = available_events()
    if count is not None:
        bench.facts["events_available"] = count
