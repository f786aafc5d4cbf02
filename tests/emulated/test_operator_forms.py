"""The forms in which operators are launched are those that silicon accepts (docs/silicon.md), and what they compute."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu
from torch.utils._python_dispatch import TorchDispatchMode

from ascend_facts import chips

ARITHMETIC = ("add", "sub", "mul", "rsub", "floor_divide", "remainder", "div")


class Launched(TorchDispatchMode):
    """Names of torch's operators with the dtypes and shapes of their tensors, as they are called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, list[torch.dtype], list[tuple[int, ...]]]] = []
        self.int64_arithmetic: list[str] = []  # on the device: vLLM's host code is seen here too

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [x for x in (*args, *(kwargs or {}).values()) if isinstance(x, torch.Tensor)]
        name = function._schema.name.removeprefix("aten::").rstrip("_")
        if name in ARITHMETIC and any(x.device.type == "npu" and x.dtype is torch.int64 for x in tensors):
            self.int64_arithmetic.append(function._schema.name)
        self.calls.append((function._schema.name, [x.dtype for x in tensors], [tuple(x.shape) for x in tensors]))
        return function(*args, **(kwargs or {}))

    def named(self, part: str) -> list[tuple[list[torch.dtype], list[tuple[int, ...]]]]:
        return [(dtypes, shapes) for name, dtypes, shapes in self.calls if part in name]


# ---------------------------------------------------------------- embedding under tensor parallelism


def embedded(ids: list[int], rank: int, rows: int = 100) -> tuple[list[list[float]], list[str], int]:
    """A table's rows on one rank of two, without the sum; what arithmetic in int64 was launched, and all launches."""
    from types import SimpleNamespace

    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod, VocabParallelEmbedding

    from ascend_plugin.ops.embedding import AscendVocabParallelEmbedding

    indices = VocabParallelEmbedding._get_indices(128, 128, rows, rows, rank, 2)
    table = torch.arange(64, dtype=torch.float16)[:, None].repeat(1, 32) + 64 * rank
    layer = SimpleNamespace(
        tp_size=2, shard_indices=indices, quant_method=UnquantizedEmbeddingMethod(), weight=table.npu(),
        reduce_results=False, parallel_group=None,
    )  # fmt: skip
    tokens = torch.tensor(ids, dtype=torch.int32).npu()
    with Launched() as launched:
        found = AscendVocabParallelEmbedding.forward(layer, tokens)
    views = sum(len(launched.named(view)) for view in ("unsqueeze", "view"))
    return found[:, 0].cpu().tolist(), launched.int64_arithmetic, len(launched.calls) - views


def test_ranks_embed_without_int64_arithmetic(npu: Npu) -> None:
    ids = [0, 63, 64, 99, 5, 70, 1]
    first, arithmetic, launches = npu.call(embedded, ids, 0)
    second, _, _ = npu.call(embedded, ids, 1)
    assert first == [0, 63, 0, 0, 5, 0, 1]
    assert [a + b for a, b in zip(first, second, strict=True)] == ids
    assert arithmetic == []
    assert launches <= 6


def test_a_rank_behind_a_small_table_adds_nothing(npu: Npu) -> None:
    """BERT's table of token types has two rows, padded: the second rank of two holds none."""
    ids = [0, 1, 1, 0, 0, 1, 0, 1]
    assert npu.call(embedded, ids, 0, rows=2)[:2] == (ids, [])
    assert npu.call(embedded, ids, 1, rows=2)[:2] == ([0] * len(ids), [])


# ---------------------------------------------------------------- mixture of experts


def routed(tokens: int, experts: int, dtype: str, k: int = 2) -> dict[str, Any]:
    from ascend_plugin.ops import expert_choice

    generator = torch.Generator().manual_seed(experts)
    logits = torch.randn(tokens, experts, generator=generator).to(getattr(torch, dtype))
    with Launched() as launched:
        weights, ids, _ = expert_choice.fused_topk(logits.npu(), logits.npu(), k, renormalize=True)
    expected, chosen = logits.double().softmax(-1).topk(k)
    expected /= expected.sum(-1, keepdim=True)
    gating = launched.named("gating_top_k_softmax")
    return {
        "same": float((ids.cpu() == chosen).float().mean()),
        "error": float((weights.cpu().double() - expected).abs().max()),
        "dtypes": {str(dtypes[0]) for dtypes, _ in gating},
        "shapes": [shapes[0] for _, shapes in gating],
    }


@pytest.mark.parametrize(
    ("tokens", "experts", "dtype", "shapes"),
    [
        (5, 128, "float16", [(5, 128)]),
        (2500, 16, "float16", [(1024, 16), (1024, 16), (452, 16)]),
        (7, 60, "float16", [(7, 64)]),
        (7, 8, "float16", [(7, 16)]),
        (7, 512, "float16", []),
        (7, 64, "float32", []),
    ],
)
@pytest.mark.chips("310P3")
def test_gating_on_310p(npu: Npu, tokens: int, experts: int, dtype: str, shapes: list[tuple[int, ...]]) -> None:
    found = npu.call(routed, tokens, experts, dtype)
    assert found["same"] > 0.999  # float16 logits may tie
    assert found["error"] < 1e-3
    assert found["shapes"] == shapes
    assert found["dtypes"] <= {"torch.float16"}


@pytest.mark.chips("910B3")
def test_gating_elsewhere_takes_float32_and_any_number_of_tokens(npu: Npu) -> None:
    found = npu.call(routed, 2500, 60, "float32")
    assert found["shapes"] == [(2500, 60)]
    assert found["same"] == 1.0


def weighted(tokens: int) -> tuple[float, list[str]]:
    from ascend_plugin.ops import moe

    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(tokens, 8, generator=generator).half()
    outputs = torch.randn(tokens, 8, 64, generator=generator).half()
    with Launched() as launched:
        found = moe._weighted_sum(weights.npu(), outputs.npu())
    expected = (weights.double().unsqueeze(-1) * outputs.double()).sum(1)
    return float((found.cpu() - expected).abs().max()), [name for name, _, _ in launched.calls]


@pytest.mark.chips("310P3", "910B3")
def test_experts_are_weighed(npu: Npu, request: pytest.FixtureRequest) -> None:
    error, names = npu.call(weighted, 9)
    assert error < 1e-2
    on_cube = any("matmul" in name or "bmm" in name for name in names)
    assert on_cube == ("910B3" in request.node.name)


def refusals() -> list[str]:
    """Of experts 72 wide, and of expert parallelism."""
    from types import SimpleNamespace

    from vllm.config import ParallelConfig
    from vllm.model_executor.layers.fused_moe.activation import MoEActivation

    from ascend_plugin import configuration, detection
    from ascend_plugin.ops import moe

    config = SimpleNamespace(has_bias=False, hidden_dim=72)
    layer = SimpleNamespace(moe_config=config, activation=MoEActivation.SILU, apply_router_weight_on_input=False)
    parallel = SimpleNamespace(parallel_config=ParallelConfig(tensor_parallel_size=2, enable_expert_parallel=True))
    said = []
    for attempt in (
        lambda: moe.refuse_uncovered(layer),
        lambda: configuration._check_parallel(parallel, detection.current_chip()),
    ):
        try:
            attempt()
        except (NotImplementedError, ValueError) as refusal:
            said.append(str(refusal))
    return said


@pytest.mark.chips("310P3", "910B3")
def test_what_310p_does_not_route_is_refused(npu: Npu, request: pytest.FixtureRequest) -> None:
    said = npu.call(refusals)
    if "910B3" in request.node.name:
        assert said == []
        return
    assert "multiple of 32, and these have 72" in said[0]
    assert said[1].startswith("Leave out --enable-expert-parallel")


# ---------------------------------------------------------------- rotary embedding


def rotated(heads: int, kv_heads: int, neox: bool, as_views: bool, dtype: str = "float16") -> dict[str, Any]:
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding

    from ascend_plugin.ops import rotary

    rotary.register()
    kind, size, tokens = getattr(torch, dtype), 128, 50
    with set_current_vllm_config(VllmConfig()):
        layer = RotaryEmbedding(size, size, 512, 10000.0, neox, kind).npu()
    generator = torch.Generator().manual_seed(heads)
    fused = torch.randn(tokens, (heads + kv_heads) * size, generator=generator).to(kind)
    positions = torch.arange(tokens) * 7
    q, k = fused.npu().split([heads * size, kv_heads * size], dim=-1)
    if not as_views:
        q, k = q.contiguous(), k.contiguous()
    with Launched() as launched:
        found = layer.forward_oot(positions.npu(), q, k)
    reference = RotaryEmbedding.forward_static(
        positions, *(x.float() for x in fused.split([heads * size, kv_heads * size], dim=-1)),
        size, size, layer.cos_sin_cache.cpu().float(), neox,
    )  # fmt: skip
    error = max(float((a.cpu().float() - b).abs().max()) for a, b in zip(found, reference, strict=True))
    fused_calls = [name for name in {name for name, _, _ in launched.calls} if name.startswith("npu::")]
    return {"error": error, "operators": sorted(fused_calls), "copies": len(launched.named("clone"))}


@pytest.mark.parametrize("as_views", [False, True])
@pytest.mark.parametrize("neox", [False, True])
@pytest.mark.parametrize("heads", [(16, 8), (40, 40), (192, 16)])
@pytest.mark.chips("310P3", "910B3")
def test_rotation(npu: Npu, request: pytest.FixtureRequest, heads: tuple[int, int], neox: bool, as_views: bool) -> None:
    found = npu.call(rotated, *heads, neox, as_views)
    on_310p = "310P3" in request.node.name
    assert found["error"] < 2e-2
    together = neox and sum(heads) <= (200 if on_310p else 72)
    if together:
        assert found["operators"] == ["npu::npu_apply_rotary_pos_emb"]
        assert found["copies"] == (2 if on_310p and as_views else 0)
    else:
        assert found["operators"] == ([] if on_310p else ["npu::npu_rotary_mul"])


# ---------------------------------------------------------------- the chip table


def test_forms_as_found_by_a_probe_take_the_table_s_place() -> None:
    duo = chips.find("310P3")
    found = chips.with_forms(duo, {"gating_rows": 4096, "rotary_modes": ["half", "interleave"]}, "a probe")
    assert found == replace(duo, forms=replace(duo.forms, gating_rows=4096, rotary_modes=("half", "interleave")))
    with pytest.raises(chips.ChipTableError, match="a probe: unknown field gating_row"):
        chips.with_forms(duo, {"gating_row": 1}, "a probe")
    with pytest.raises(chips.ChipTableError, match="gating_rows is 'many', expected int"):
        chips.with_forms(duo, {"gating_rows": "many"}, "a probe")


# ---------------------------------------------------------------- attention in graphs of 910B


def graph_tasks(head_size: int, query_lens: list[int]) -> dict[str, Any]:
    """Two layers' tasks, each launched at capture and again for a replay: the scratch memory they were given."""
    from types import SimpleNamespace

    from vllm.forward_context import override_forward_context

    from ascend_plugin.attention.fused_infer import FusedInferAttention
    from ascend_plugin.attention.metadata import AscendMetadata, Phase

    device, tokens, blocks = torch.device("npu"), sum(query_lens), 8
    pages = [torch.zeros(blocks, 128, 2, head_size, dtype=torch.float16, device=device) for _ in range(2)]
    query = torch.zeros(tokens, 4, head_size, dtype=torch.float16, device=device)
    lens = torch.tensor(query_lens, dtype=torch.int32)
    metadata = AscendMetadata(
        phase=Phase.DECODE if max(query_lens) == 1 else Phase.MIXED,
        num_tokens=tokens,
        query_lens=lens,
        seq_lens_host=lens + 100,
        seq_lens=(lens + 100).to(device),
        block_table=torch.zeros(len(lens), 4, dtype=torch.int32, device=device),
        slot_mapping=torch.zeros(tokens, dtype=torch.int32, device=device),
        causal=True,
    )
    layer = FusedInferAttention(4, head_size, 1.0, num_kv_heads=2)
    asked: list[list[int]] = []
    given: list[int] = []

    class Scratch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if "get_max_workspace" in function._schema.name:
                asked.append(list(kwargs["actual_seq_lengths_kv"]))
            elif "fused_infer" in function._schema.name:
                given.append(kwargs["workspace"].data_ptr())
            return function(*args, **(kwargs or {}))

    outputs = [torch.zeros_like(query) for _ in range(2)]
    with override_forward_context(SimpleNamespace(attn_metadata={"a": metadata})), Scratch():
        tasks = [layer._task("a", query, tuple(pages), out) for out in outputs]
        for task in tasks * 2:
            task()
    return {"asked": asked, "given": given}


@pytest.mark.parametrize("head_size", [128, 96])
@pytest.mark.chips("910B3")
def test_launches_of_a_graph_share_scratch_memory_that_fits_the_longest_context(npu: Npu, head_size: int) -> None:
    found = npu.call(graph_tasks, head_size, [1, 1, 1])
    assert found["asked"] == [[4 * 128] * 3]
    assert len(found["given"]) == 4
    assert len(set(found["given"])) == 1


@pytest.mark.chips("910B3")
def test_a_task_of_a_graph_is_one_launch_or_refused(npu: Npu) -> None:
    with pytest.raises(RuntimeError, match="2 different numbers of tokens"):
        npu.call(graph_tasks, 96, [2, 1])


# ---------------------------------------------------------------- int8


def int8_products(outlier: float) -> dict[str, Any]:
    """Errors against float64 of the same integers, relative to the largest result; what was launched."""
    from ascend_plugin import detection
    from ascend_plugin.quantization.int8 import DynamicProduct, StaticProduct, stored

    torch.npu.config.allow_internal_format = True
    chip = detection.current_chip()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 128, generator=generator) * torch.tensor([1e-3, 0.1, 1.0, 30.0, 300.0, 1.0])[:, None]
    x[5, 3] = outlier
    x = x.half()
    weight = torch.randint(-127, 128, (96, 128), generator=generator, dtype=torch.int8)
    scale = torch.rand(96, generator=generator) * 0.02 + 1e-3
    held = stored(weight.npu(), chip)
    by_token = x.double().abs().amax(1, keepdim=True) / 127
    quantized = (x.double() / by_token).round()
    expected = quantized @ weight.double().t() * scale * by_token
    with Launched() as launched:
        found = DynamicProduct(held, scale.npu(), torch.float16, chip)(x.npu()).cpu().double()
    dynamic = ((found - expected).abs().amax(1) / expected.abs().amax(1)).tolist()
    step = torch.tensor(0.25)
    quantized = (x.double() / step + 3).round().clamp(-128, 127)
    expected = quantized @ weight.double().t() * (scale * step).double()
    static = StaticProduct(held, (scale * step).npu(), step.npu(), torch.tensor(3.0).npu(), None, torch.float16)
    found = static(x.npu()).cpu().double()
    return {
        "dynamic": dynamic,
        "static": float((found - expected).abs().max() / expected.abs().max()),
        "factors": static.factor.shape[0],
        "scaled in the product": any(len(dtypes) > 3 for dtypes, _ in launched.named("npu_quant_matmul")),
    }


@pytest.mark.parametrize("outlier", [1.0, 2e4])
@pytest.mark.chips("310P3", "910B3")
def test_int8_products(npu: Npu, request: pytest.FixtureRequest, outlier: float) -> None:
    found = npu.call(int8_products, outlier)
    assert max(found["dynamic"]) < 4e-3
    assert found["static"] < 2e-3
    assert found["factors"] == 128
    assert found["scaled in the product"] == ("910B3" in request.node.name)


# ---------------------------------------------------------------- paged attention of 310P beyond the fixed mask


def prompts_after_prefixes(served: int) -> dict[str, Any]:
    """Errors of chunks behind long prefixes; with the fixed mask, or a mask of its own beyond `served` keys."""
    from dataclasses import replace
    from types import SimpleNamespace

    from vllm.config import CUDAGraphMode
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    from ascend_plugin import detection
    from ascend_plugin.attention import paged_nz
    from ascend_plugin.attention.metadata import Phase

    torch.npu.config.allow_internal_format = True
    device, heads, kv_heads, size, block = torch.device("npu"), 2, 1, 64, 128
    chip = detection.current_chip()
    patched = replace(chip, forms=replace(chip.forms, compressed_mask_keys=served))
    query_lens, seq_lens = [3, 16, 1], [2049, 2600, 2047]
    config = SimpleNamespace(
        scheduler_config=SimpleNamespace(max_num_batched_tokens=64),
        model_config=SimpleNamespace(max_model_len=4096),
        compilation_config=SimpleNamespace(cudagraph_mode=CUDAGraphMode.NONE),
        uniform_decode_query_len=1,
    )
    spec = FullAttentionSpec(block_size=block, num_kv_heads=kv_heads, head_size=size, dtype=torch.float16)
    original, paged_nz.detection.current_chip = paged_nz.detection.current_chip, lambda: patched
    try:
        builder = paged_nz.WindowMetadataBuilder(spec, ["a"], config, device)
    finally:
        paged_nz.detection.current_chip = original
    width = -(-max(seq_lens) // block)
    table = torch.arange(len(seq_lens) * width, dtype=torch.int32).view(len(seq_lens), width)
    generator = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(len(seq_lens), width * block, size, generator=generator).half() for _ in range(2))
    query = torch.randn(sum(query_lens), heads, size, generator=generator).half()
    cache = tuple(paged_nz.allocate_cache(table.numel(), block, kv_heads, size, device) for _ in range(2))
    layer = paged_nz.PagedNzAttention(heads, size, size**-0.5, num_kv_heads=kv_heads)
    slots = torch.arange(table.numel() * block, dtype=torch.int32, device=device)
    everything = (x.reshape(-1, kv_heads, size).npu() for x in (keys, values))
    layer.write(*everything, cache, SimpleNamespace(slot_mapping=slots))
    ends = torch.tensor([0, *query_lens]).cumsum(0).int()
    common = SimpleNamespace(
        query_start_loc_cpu=ends, seq_lens_cpu_upper_bound=torch.tensor(seq_lens, dtype=torch.int32),
        seq_lens=torch.tensor(seq_lens, dtype=torch.int32).npu(), max_query_len=max(query_lens),
        num_actual_tokens=sum(query_lens), num_reqs=len(query_lens), block_table_tensor=table.npu(),
        slot_mapping=torch.zeros(sum(query_lens), dtype=torch.int32).npu(), causal=True,
    )  # fmt: skip
    metadata = builder.build(0, common)
    assert metadata.phase is Phase.MIXED
    out = torch.empty_like(query, device=device)
    with Launched() as launched:
        layer.attend(None, query.npu(), None, cache, metadata, out)
    errors = []
    for request, (new, total) in enumerate(zip(query_lens, seq_lens, strict=True)):
        scores = torch.einsum(
            "qhd,kd->hqk", query[ends[request] : ends[request + 1]].double(), keys[request, :total].double()
        )
        ahead = torch.arange(total)[None] > torch.arange(total - new, total)[:, None]
        weights = (scores * size**-0.5).masked_fill(ahead, float("-inf")).softmax(-1)
        expected = torch.einsum("hqk,kd->qhd", weights, values[request, :total].double())
        errors.append(float((out[ends[request] : ends[request + 1]].cpu() - expected).abs().max()))
    names = [name for name, _, _ in launched.calls if "splitfuse" in name]
    return {"errors": errors, "operators": names}


@pytest.mark.parametrize(("served", "operator"), [(0, "splitfuse_v2"), (2048, "splitfuse"), (3000, "splitfuse_v2")])
@pytest.mark.chips("310P3")
def test_chunks_behind_long_prefixes(npu: Npu, served: int, operator: str) -> None:
    found = npu.call(prompts_after_prefixes, served)
    assert max(found["errors"]) < 2e-3
    assert found["operators"] == [f"atb::_npu_paged_attention_{operator}"]


FORMS = """
import json, torch
from ascend_facts import probes
from ascend_plugin import detection
chip = detection.current_chip()
here = probes.installation(chip.soc_version)
print("FORMS", json.dumps({**probes.ProbeResult(here, {}).document(), "rows": chip.forms.gating_rows}))
"""


def test_a_probe_s_result_changes_the_plugin_s_choices(emulated: Any, tmp_path: Path) -> None:
    def forms(**variables: str) -> dict[str, Any]:
        done = emulated(chip="310P3").run([sys.executable, "-c", FORMS], env=variables, capture_output=True, text=True)
        (line,) = (line for line in done.stdout.splitlines() if line.startswith("FORMS "))
        return json.loads(line.removeprefix("FORMS "))

    here = forms()
    assert here.pop("rows") == 1024
    result = tmp_path / "result.json"
    result.write_text(json.dumps({**here, "forms": {"gating_rows": 4096}}))
    assert forms(ASCEND_PROBE=str(result))["rows"] == 4096
    assert forms(ASCEND_PROBE="off")["rows"] == 1024


def rows_of_dummy_run() -> tuple[list[str], list[float]]:
    from ascend_plugin import detection
    from ascend_plugin.runner.dummy_run import dummy_run_context

    hidden = torch.full((2, 4), float("nan"), dtype=torch.float16, device="npu")
    with Launched() as launched, dummy_run_context(detection.current_chip()):
        rows = torch.rand_like(hidden)
    return [name for name, _, _ in launched.calls if "rand" in name or "uniform" in name], rows.flatten().cpu().tolist()


@pytest.mark.chips("310P3", "910B3")
def test_dummy_runs_draw_no_random_numbers_on_310p(npu: Npu, request: pytest.FixtureRequest) -> None:
    drawn, values = npu.call(rows_of_dummy_run)
    assert bool(drawn) == ("910B3" in request.node.name)
    assert all(0 <= value < 1 for value in values)


# ---------------------------------------------------------------- places of LoRA adapters


def places_of_adapters() -> dict[str, Any]:
    """Two tokens with the second adapter, one with none, one with the first; and the rows that an embedding adds."""
    from vllm.lora.layers import LoRAMapping

    from ascend_plugin.lora import AscendPunicaWrapper

    wrapper = AscendPunicaWrapper(8, 4, torch.device("npu"), max_loras=2)
    mapping = LoRAMapping((5, 5, 0, 3), (5, 0, 3))
    ids = torch.tensor([7, 8, 9, 10], dtype=torch.int32).npu()
    with Launched() as launched:
        wrapper.update_metadata(mapping, [3, 5], 2, 100)
        rows = ids + wrapper._embeddings_indices[:4]
        x = torch.ones(4, 16, dtype=torch.float16, device="npu")
        a = torch.ones(2, 1, 8, 16, dtype=torch.float16, device="npu")
        b = torch.stack([torch.full((1, 16, 8), value, dtype=torch.float16) for value in (1.0, 2.0)]).npu()
        added = torch.zeros(4, 16, dtype=torch.float16, device="npu")
        wrapper.no_lora = False
        wrapper.add_lora_linear(added, x, (a,), (b,), 1.0, (16,))
    return {
        "rows": rows.cpu().tolist(),
        "added": added[:, 0].cpu().tolist(),
        "in int64": launched.int64_arithmetic,
    }


@pytest.mark.chips("310P3", "910B3")
def test_places_of_adapters_are_int32(npu: Npu) -> None:
    """The 310P's vector units fault in sums of int64: an embedding adds its adapter's rows to the tokens' ids."""
    found = npu.call(places_of_adapters)
    assert found["rows"] == [107, 108, 9, 10]
    assert found["added"] == [256.0, 256.0, 0.0, 128.0]
    assert found["in int64"] == []


# ---------------------------------------------------------------- weights drawn while a model is made


def drawn_by_layers() -> dict[str, float]:
    from ascend_plugin.weight_upload import HostDraws

    with HostDraws(), torch.device("npu"):
        layer = torch.nn.Linear(64, 8)
        seeded = torch.empty(1000).uniform_(2.0, 3.0, generator=torch.Generator("npu").manual_seed(1))
    weight, seeded = layer.weight.detach().cpu(), seeded.cpu()
    return {
        "largest": weight.abs().max().item(),
        "different": weight.unique().numel(),
        "from": seeded.min().item(),
        "to": seeded.max().item(),
    }


@pytest.mark.chips("310P3")
def test_layers_that_draw_weights_as_they_are_made_draw_on_the_host(npu: Npu) -> None:
    """310P hangs in uniform_, which nn.Linear calls: the heads of vLLM's classifiers are such layers."""
    found = npu.call(drawn_by_layers)
    assert 0 < found["largest"] <= 64**-0.5 and found["different"] > 400
    assert 2.0 <= found["from"] < 2.1 and 2.9 < found["to"] <= 3.0
