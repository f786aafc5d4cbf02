"""Graphs: a layer captured and replayed with changed inputs, what a capture takes, and what a failed one leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from ascend_cli.doctor.probe.bench import Bench
from ascend_cli.doctor.probe.case import Case, NotHere, WrongResult
from ascend_facts.chips import ChipSpec

REPLAYS = 100
NZ = 29


def graph(chip: ChipSpec) -> Iterator[Case]:
    if not chip.has_graphs:
        return
    yield Case("a layer captured, 100 replays", replays)
    if chip.attention == "paged_nz":
        yield Case("paged attention captured, lengths that grow", growing_lengths)
    else:
        yield Case("attention captured, tasks updated with longer lengths", updated_tasks)
    yield Case("two graphs in one pool", shared_pool)
    yield Case("a capture that fails, and launches after it", failed_capture)


def _capture(body: Callable[[], torch.Tensor], pool: Any = None) -> tuple[Any, torch.Tensor]:
    captured = torch.npu.NPUGraph()
    stream = torch.npu.Stream()
    stream.wait_stream(torch.npu.current_stream())
    with torch.npu.stream(stream):
        captured.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            out = body()
        finally:
            captured.capture_end()
    torch.npu.current_stream().wait_stream(stream)
    return captured, out


def _layer(bench: Bench) -> tuple[Callable[[], torch.Tensor], torch.Tensor]:
    """Embedding, norm, product, activation, product, as a function of ids on the device."""
    import torch_npu

    width, inner = 256, 512
    table, norm = bench.put(bench.randn(1000, width)), bench.put(bench.randn(width))
    up, down = bench.put(bench.randn(2 * inner, width) / 16), bench.put(bench.randn(width, inner) / 16)
    if bench.chip.weight_format == "nz":
        up, down = torch_npu.npu_format_cast(up, NZ), torch_npu.npu_format_cast(down, NZ)
    ids = bench.put(torch.zeros(9, dtype=torch.int64))

    def run() -> torch.Tensor:
        hidden = torch.nn.functional.embedding(ids, table)
        normal = torch_npu.npu_rms_norm(hidden, norm, 1e-6)[0]
        gated = torch_npu.npu_swiglu(torch.nn.functional.linear(normal, up))
        return torch.nn.functional.linear(gated, down) + hidden

    return run, ids


def replays(bench: Bench) -> None:
    from ascend_plugin.graphs.events import available_events

    run, ids = _layer(bench)
    run()
    torch.npu.synchronize()
    before = available_events()
    captured, out = _capture(run)
    after = available_events()
    if before is not None and after is not None:
        bench.facts["events_of_a_graph"] = before - after
    for replay in range(REPLAYS):
        ids.copy_(bench.randint(0, 1000, (9,), torch.int64))
        captured.replay()
        if replay % 20 == 19:
            bench.close(out, run().cpu())
    bench.facts["replay_us"] = round(bench.timed(captured.replay), 2)


def shared_pool(bench: Bench) -> None:
    """The second graph may use the first one's memory; each must give its own result, one after the other."""
    run, ids = _layer(bench)
    run()
    first, out = _capture(run)
    second, other = _capture(lambda: run() * 2, first.pool())
    ids.copy_(bench.randint(0, 1000, (9,), torch.int64))
    expected = run().cpu()
    for _ in range(3):
        first.replay()
        bench.close(out.clone(), expected)
        second.replay()
        bench.close(other.clone(), expected.double() * 2)


def growing_lengths(bench: Bench) -> None:
    import torch_npu

    from ascend_cli.doctor.probe.cases_attention import _caches, _sequences
    from ascend_cli.doctor.probe.references import attended

    heads, kv_heads, size, longest = 4, 2, 128, 300
    keys, values = _sequences(bench, [longest] * 3, kv_heads, size)
    caches, table = _caches(bench, keys, values)
    q = bench.randn(3, heads, size, dtype=torch.float16)
    there = bench.put(q), bench.put(table), bench.put(torch.ones(3, dtype=torch.int32))
    out = torch.empty_like(there[0])

    def run() -> torch.Tensor:
        torch_npu._npu_paged_attention(
            query=there[0], key_cache=caches[0], value_cache=caches[1], num_kv_heads=kv_heads, num_heads=heads,
            scale_value=size**-0.5, block_table=there[1], context_lens=there[2], out=out,
        )  # fmt: skip
        return out

    run()
    captured, _ = _capture(run)
    for lengths in ([1, 1, 1], [5, 128, 129], [300, 2, 256]):
        there[2].copy_(torch.tensor(lengths, dtype=torch.int32))
        captured.replay()
        rows = [attended(q[i : i + 1], keys[i][:n], values[i][:n], None) for i, n in enumerate(lengths)]
        bench.close(out.clone(), torch.cat(rows))


def updated_tasks(bench: Bench) -> None:
    import torch_npu

    from ascend_cli.doctor.probe import cases_fused_infer as infer

    q, kinds, totals = infer._batch(bench, 4, 2, 128, bench.half, [1] * 3, [299] * 3)
    caches, table = infer._paged(bench, kinds)
    mask = infer._mask(bench), infer.CAUSAL
    arguments = infer._arguments(bench, "TND", (4, 2), 128, [1, 2, 3], totals, table, mask, None)
    tensors = [bench.put(q), *caches]
    out = torch.empty_like(tensors[0])
    longest = {**arguments, "actual_seq_lengths_kv": [table.shape[1] * infer.BLOCK] * 3}
    workspace = torch_npu._npu_fused_infer_attention_score_get_max_workspace(*tensors, **longest)
    ready, handle = torch.npu.ExternalEvent(), []

    def run() -> torch.Tensor:
        stream = torch.npu.current_stream()
        ready.wait(stream)
        ready.reset(stream)
        torch.npu.graph_task_group_begin(stream)
        infer._launch(tensors, out, arguments, workspace)
        handle.append(torch.npu.graph_task_group_end(stream))
        return out

    captured, _ = _capture(run)
    side = torch.npu.Stream()
    for lengths in ([1, 1, 1], [5, 128, 129], [300, 2, 256]):
        captured.replay()
        with torch.npu.stream(side):
            torch.npu.graph_task_update_begin(side, handle[0])
            infer._launch(tensors, out, {**arguments, "actual_seq_lengths_kv": lengths}, workspace)
            torch.npu.graph_task_update_end(side)
            ready.record(side)
        torch.npu.synchronize()
        rows = [infer._reference(q[i : i + 1], kinds[0][i][:n], kinds[1][i][:n], None) for i, n in enumerate(lengths)]
        bench.close(out, torch.cat(rows))


def failed_capture(bench: Bench) -> None:
    """Waiting inside a capture is refused; what matters is whether anything is launched afterwards."""
    x = bench.put(torch.ones(8))
    try:
        _capture(lambda: x * float((x + 1)[0].item()))
    except RuntimeError:
        pass
    else:
        raise NotHere("a wait inside a capture was not refused here")
    event = torch.npu.Event()
    event.record()
    torch.npu.synchronize()
    bench.facts["launches_after_failed_capture"] = bool(event.query())
    if not bench.facts["launches_after_failed_capture"]:
        raise WrongResult("after a capture that failed nothing is launched any more")
    bench.same(x + 1, torch.full((8,), 2.0))
