"""What the plugin sets and refuses in vLLM's configuration, choice by choice."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Qwen3OmniMoeConfig, XLMRobertaConfig
from vllm.config import CompilationMode, CUDAGraphMode, KVTransferConfig, ModelConfig

from ascend_facts import chips
from ascend_plugin import compat, configuration, detection
from ascend_plugin.configuration import UnsupportedChoice
from ascend_plugin.graphs import budget, events

DUO, A2 = chips.find("310P3"), chips.find("910B3")
GRAPHS, NONE = CUDAGraphMode.FULL_DECODE_ONLY, CUDAGraphMode.NONE

# ------------------------------------------------------------------------------------------------- graph sizes


@pytest.mark.parametrize(
    ("chip", "layers", "size", "graphs"),
    [
        # 1,000 streams less 64, one a graph; 500 events less 64, two a graph: 218 are fewer.
        ({"max_streams": 1000, "max_events": 500, "graph_lengths_on_device": True}, 10, 1, 218),
        ({"max_streams": 100, "max_events": 500, "graph_lengths_on_device": True}, 10, 1, 36),
        # Lengths on the host: an event more for each of ten layers: 436 / 12.
        ({"max_streams": 1000, "max_events": 500, "graph_lengths_on_device": False}, 10, 1, 36),
        # Over ranks two collectives a layer and one more, and a stream more: 21 * 3 + 2 = 65 events, 936 / 65.
        ({"max_streams": 1000, "max_events": 1000, "graph_lengths_on_device": True}, 10, 2, 14),
        ({"max_streams": 84, "max_events": 100_000, "graph_lengths_on_device": True}, 10, 2, 10),
        ({"max_streams": 64, "max_events": 64, "graph_lengths_on_device": True}, 10, 1, 0),
    ],
)
def test_budgets(chip: dict[str, Any], layers: int, size: int, graphs: int) -> None:
    forms = replace(A2.forms, events_per_collective=3, graphs_with_collectives=0)
    assert budget.graph_budget(replace(A2, forms=forms, **chip), layers, size) == graphs


def test_graphs_with_collectives_are_held_to_a_number() -> None:
    chip = replace(A2, forms=replace(A2.forms, graphs_with_collectives=2))
    assert budget.graph_budget(chip, 1, 2) == 2
    assert budget.graph_budget(chip, 1, 1) > 2


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [
        (1, [1]),
        (2, [1, 2]),
        (6, [1, 2, 4, 6]),
        (32, [1, 2, 4, 8, 16, 32]),
        (48, [1, 2, 4, 8, 16, 32, 48]),
        (100, [1, 2, 4, 8, 16, 32, 48, 64, 96, 100]),
        (256, [1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256]),
    ],
)
def test_ladders(largest: int, sizes: list[int]) -> None:
    assert budget.ladder(largest) == sizes


@pytest.mark.parametrize(
    ("graphs", "largest", "sizes"),
    [
        (16, 100, [1, 2, 4, 8, 16, 32, 48, 64, 96, 100]),
        (10, 100, [1, 2, 4, 8, 16, 32, 48, 64, 96, 100]),
        (9, 100, [1, 2, 4, 8, 16, 32, 64, 100]),  # midpoints go first
        (8, 100, [1, 2, 4, 8, 16, 32, 64, 100]),
        (7, 100, [16, 32, 64, 100]),  # then those below 16
        (3, 100, [16, 64, 100]),  # then every second or so: places 0, 1.5 (to even: 2) and 3
        (2, 100, [16, 100]),
        (1, 100, [100]),
        (1, 8, [8]),
        (2, 8, [1, 8]),  # nothing is as high as the cube: a lone request is not padded
        (2, 4, [1, 4]),
        (0, 100, []),
        (-3, 100, []),
        (99, 1 << 18, [1 << power for power in range(4, 19)]),
    ],
)
def test_sizes(graphs: int, largest: int, sizes: list[int]) -> None:
    assert budget.capture_sizes(graphs, largest) == sizes


def asking(**changes: Any) -> Any:
    """A configuration of a model of ten layers; changes by the name of what they are in."""
    parts: dict[str, dict[str, Any]] = {
        "compilation_config": {
            "cudagraph_capture_sizes": None,
            "max_cudagraph_capture_size": None,
            "cudagraph_mode": GRAPHS,
            "mode": None,
        },
        "scheduler_config": {"max_num_seqs": 64, "max_num_batched_tokens": 2048},
        "parallel_config": {"tensor_parallel_size": 1},
    }
    flat = {name: changes.pop(name) for name in list(changes) if not isinstance(changes[name], dict)}
    for name, fields in changes.items():
        parts.setdefault(name, {}).update(fields)
    model = SimpleNamespace(get_num_layers=lambda parallel: 10)
    whole = {"uniform_decode_query_len": 1, "model_config": model, "lora_config": None} | flat
    return SimpleNamespace(**{name: SimpleNamespace(**fields) for name, fields in parts.items()}, **whole)


ROOMY = replace(A2, max_streams=10_000, max_events=10_000, graph_lengths_on_device=True)
TIGHT = replace(ROOMY, max_streams=66, max_events=10_000)  # two graphs


def chosen(chip: chips.ChipSpec, **changes: Any) -> Any:
    config = asking(**changes)
    budget.choose_capture_sizes(config, chip)
    return config.compilation_config


def test_sizes_reach_the_largest_batch() -> None:
    found = chosen(ROOMY)
    assert found.cudagraph_capture_sizes == [1, 2, 4, 8, 16, 32, 48, 64]
    assert (found.max_cudagraph_capture_size, found.cudagraph_mode) == (64, GRAPHS)
    # Three tokens a request: sizes are tokens, and 2048 // 3 requests are more than 64.
    assert chosen(ROOMY, uniform_decode_query_len=3).cudagraph_capture_sizes[-1] == 192
    few = chosen(ROOMY, uniform_decode_query_len=3, scheduler_config={"max_num_batched_tokens": 20})
    assert few.cudagraph_capture_sizes == [3, 6, 12, 18]
    assert chosen(ROOMY, scheduler_config={"max_num_batched_tokens": 0}).cudagraph_capture_sizes == [1]
    most = {"max_cudagraph_capture_size": 20}
    assert chosen(ROOMY, compilation_config=most).cudagraph_capture_sizes == [1, 2, 4, 8, 16, 20]
    assert chosen(ROOMY, compilation_config=dict(most), uniform_decode_query_len=3).cudagraph_capture_sizes[-1] == 18
    assert chosen(ROOMY, compilation_config={"max_cudagraph_capture_size": 0}).cudagraph_capture_sizes == [1]
    assert chosen(TIGHT).cudagraph_capture_sizes == [16, 64]


def test_adapters_take_every_size_twice() -> None:
    assert chosen(TIGHT, lora_config=object()).cudagraph_capture_sizes == [64]


def test_a_list_is_kept_as_far_as_it_fits() -> None:
    asked = {"cudagraph_capture_sizes": [8, 1, 4]}
    assert chosen(ROOMY, compilation_config=dict(asked)).cudagraph_capture_sizes == [8, 1, 4]
    assert chosen(TIGHT, compilation_config={"cudagraph_capture_sizes": [8, 4]}).cudagraph_capture_sizes == [8, 4]
    cut = chosen(TIGHT, compilation_config=dict(asked))
    assert (cut.cudagraph_capture_sizes, cut.max_cudagraph_capture_size) == ([4, 8], 8)
    none = chosen(replace(TIGHT, max_streams=64), compilation_config=dict(asked))
    assert (none.cudagraph_capture_sizes, none.cudagraph_mode) == ([], NONE)
    assert chosen(replace(TIGHT, max_streams=64)).cudagraph_mode == NONE


def test_sizes_over_a_limit_are_dropped() -> None:
    compilation = SimpleNamespace(cudagraph_capture_sizes=None, cudagraph_mode=GRAPHS)
    budget.limit_tokens(compilation, 4, "x")
    assert compilation.cudagraph_capture_sizes == [] and compilation.cudagraph_mode == GRAPHS
    compilation = SimpleNamespace(cudagraph_capture_sizes=[1, 5], cudagraph_mode=GRAPHS, max_cudagraph_capture_size=9)
    budget.limit_tokens(compilation, 5, "x")
    assert (compilation.cudagraph_capture_sizes, compilation.max_cudagraph_capture_size) == ([1, 5], 9)


@pytest.mark.parametrize(("left", "has_room"), [(164, True), (163, False), (None, True)])
def test_room_for_one_more_graph(left: int | None, has_room: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[int | None] = [1000, 900, 900, 850, left]
    monkeypatch.setattr(events, "available_events", lambda: answers.pop(0))
    meter = events.EventMeter()
    for _ in range(2):  # the first takes 100, the second 50
        assert meter.has_room()
        meter.measure()
    assert meter.per_graph == 100
    assert meter.has_room() is has_room, "100 for it, 64 for everything else"


# ----------------------------------------------------------------------------------------------------- refusals


def refused(check: Any, config: Any, *more: Any) -> str:
    with pytest.raises(UnsupportedChoice) as refusal:
        check(config, *more)
    return str(refusal.value)


def parallel(**changes: Any) -> Any:
    fields = {
        "world_size": 1, "enable_dbo": False, "pipeline_parallel_size": 1, "enable_expert_parallel": False,
        "nnodes_within_dp": 1, "distributed_executor_backend": None, "nnodes": 1, "data_parallel_size_local": 1,
    }  # fmt: skip
    return SimpleNamespace(parallel_config=SimpleNamespace(**fields | changes))


def test_ways_to_divide_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "device_count", lambda: 4)
    monkeypatch.delenv("HCCL_OP_EXPANSION_MODE", raising=False)
    check = configuration._check_parallel
    for fine in (
        {},
        {"world_size": 4},
        {"world_size": 2, "data_parallel_size_local": 2},
        {"data_parallel_size_local": 0},
    ):
        check(parallel(**fine), DUO)
    assert "5 chips are asked for" in refused(check, parallel(world_size=5), DUO)
    assert "6 chips" in refused(check, parallel(world_size=2, data_parallel_size_local=3), A2)
    for elsewhere in (
        {"nnodes": 2},
        {"distributed_executor_backend": "ray"},
        {"distributed_executor_backend": "external_launcher"},
    ):
        check(parallel(world_size=64, **elsewhere), A2)
    assert "--enable-dbo" in refused(check, parallel(enable_dbo=True), A2)
    check(parallel(pipeline_parallel_size=2, nnodes_within_dp=2, enable_expert_parallel=True), A2)
    assert "--pipeline-parallel-size" in refused(check, parallel(pipeline_parallel_size=2), DUO)
    assert "--nnodes" in refused(check, parallel(nnodes_within_dp=2), DUO)
    assert "--enable-expert-parallel" in refused(check, parallel(enable_expert_parallel=True), DUO)
    monkeypatch.setenv("HCCL_OP_EXPANSION_MODE", "AI_CPU")
    assert "HCCL_OP_EXPANSION_MODE" in refused(check, parallel(world_size=2), DUO)
    check(parallel(world_size=2), A2)
    check(parallel(world_size=1), DUO)
    monkeypatch.setenv("HCCL_OP_EXPANSION_MODE", "AIV")
    check(parallel(world_size=2), DUO)


def caching(**changes: Any) -> Any:
    fields = {"cache_dtype": "auto", "prefix_match_unit": None}
    transfer = changes.pop("kv_transfer_config", None)
    return SimpleNamespace(cache_config=SimpleNamespace(**fields | changes), kv_transfer_config=transfer)


def test_caches() -> None:
    check = configuration._check_kv_cache
    for dtype in ("auto", "float16", "bfloat16"):
        check(caching(cache_dtype=dtype), DUO)
    assert "--kv-cache-dtype fp8" in refused(check, caching(cache_dtype="fp8"), A2)
    assert "--prefix-match-unit" in refused(check, caching(prefix_match_unit=1), DUO)
    foreign = SimpleNamespace(kv_connector_module_path=None)
    assert "--kv-transfer-config" in refused(check, caching(kv_transfer_config=foreign), DUO)
    check(caching(prefix_match_unit=1, kv_transfer_config=foreign), A2)


def test_blocks_on_the_host_are_moved_by_our_connector() -> None:
    for asked in (
        {"kv_offloading_size": 1.0},
        {"kv_transfer_config": KVTransferConfig(kv_connector="OffloadingConnector", kv_role="kv_both")},
    ):
        config = caching(**{"kv_offloading_size": None} | asked)
        configuration._prepare_host_cache(config)
        assert config.kv_transfer_config.kv_connector_module_path == configuration.HOST_CACHE
        configuration._check_kv_cache(config, DUO)
    foreign = caching(kv_offloading_size=None, kv_transfer_config=KVTransferConfig(kv_connector="X", kv_role="kv_both"))
    configuration._prepare_host_cache(foreign)
    assert foreign.kv_transfer_config.kv_connector_module_path is None


def sleeping(**changes: Any) -> Any:
    fields = {"sleep_mode_offload_cudagraph": False, "enable_nccl_comm_suspend": False, "sleep_mode_backend": "cumem"}
    return SimpleNamespace(**{"enable_sleep_mode": True} | fields | changes)


def test_sleep() -> None:
    check = configuration._check_sleep_mode
    model = sleeping()
    check(model)
    assert model.sleep_mode_backend == configuration.SLEEP_BACKEND
    check(sleeping(enable_sleep_mode=False, enable_nccl_comm_suspend=True))
    assert "--sleep-mode-offload-cudagraph" in refused(check, sleeping(sleep_mode_offload_cudagraph=True))
    assert "--enable-nccl-comm-suspend" in refused(check, sleeping(enable_nccl_comm_suspend=True))


def test_dtypes() -> None:
    configuration.check_dtype(torch.float16, DUO)
    configuration.check_dtype("bfloat16", A2)
    assert "--dtype bfloat16 (or give --dtype float16)" in refused(configuration.check_dtype, torch.bfloat16, DUO)


def speculating(**changes: Any) -> Any:
    draft = changes.pop("draft", None)
    fields = {
        "method": "mtp", "num_speculative_tokens": 1, "rejection_sample_method": "standard",
        "draft_sample_method": "greedy", "parallel_drafting": False, "use_heterogeneous_vocab": False,
        "draft_model_config": draft,
    }  # fmt: skip
    model = SimpleNamespace(is_hybrid=changes.pop("hybrid", False), uses_mrope=changes.pop("mrope", False))
    stages = SimpleNamespace(pipeline_parallel_size=changes.pop("stages", 1))
    return SimpleNamespace(
        speculative_config=SimpleNamespace(**fields | changes), model_config=model, parallel_config=stages
    )


def test_speculation() -> None:
    check = partial(configuration._check_speculation, chip=DUO)
    check(SimpleNamespace(speculative_config=None, model_config=None))
    check(speculating(num_speculative_tokens=5, rejection_sample_method="synthetic", stages=2))
    check(speculating(hybrid=True))
    assert "--pipeline-parallel-size" in refused(check, speculating(hybrid=True, stages=2))
    assert '"num_speculative_tokens" to 1' in refused(check, speculating(hybrid=True, num_speculative_tokens=2))
    assert '"block"' in refused(check, speculating(rejection_sample_method="block"))
    for method in ("dflash", "ngram_gpu", "extract_hidden_states"):
        assert f"what {method} drafts with" in refused(check, speculating(method=method))
    for option in ("parallel_drafting", "use_heterogeneous_vocab"):
        assert f'"{option}"' in refused(check, speculating(**{option: True}))
    drawn = speculating(draft_sample_method="probabilistic")
    assert '"draft_sample_method"' in refused(check, drawn)
    configuration._check_speculation(drawn, A2)


@pytest.mark.parametrize(
    ("target", "draft", "taken"), [(False, True, True), (True, True, False), (False, False, False)]
)
def test_sections_of_positions_are_taken_from_a_text_s_draft(target: bool, draft: bool, taken: bool) -> None:
    def config() -> Any:
        return SimpleNamespace(rope_parameters={"mrope_section": [1], "mrope_interleaved": True, "theta": 1})

    drafting = SimpleNamespace(uses_mrope=draft, hf_config=config(), hf_text_config=config())
    configuration._check_speculation(speculating(draft=drafting, mrope=target), DUO)
    for one in (drafting.hf_config, drafting.hf_text_config):
        assert one.rope_parameters == ({"theta": 1} if taken else config().rope_parameters)


@pytest.mark.parametrize(
    ("architecture", "budget", "left"),
    [("HrmTextForCausalLM", 256, 512), ("HrmTextForCausalLM", 1024, 1024), ("Qwen3ForCausalLM", 256, 256)],
)
def test_a_step_has_room_for_a_prompt_that_is_not_cut(architecture: str, budget: int, left: int) -> None:
    """A prompt beyond the budget of a step was never scheduled: the engine spun."""
    config: Any = SimpleNamespace(
        model_config=SimpleNamespace(architecture=architecture, max_model_len=512),
        scheduler_config=SimpleNamespace(enable_chunked_prefill=True, max_num_batched_tokens=budget),
        cache_config=SimpleNamespace(enable_prefix_caching=True),
    )
    configuration._make_room_for_prompts(config)
    whole = architecture in configuration.WHOLE_PROMPTS
    assert config.scheduler_config.max_num_batched_tokens == left
    assert config.scheduler_config.enable_chunked_prefill is not whole
    assert config.cache_config.enable_prefix_caching is not whole


def test_the_second_runner_and_what_brings_it_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def config(watermark: Any = None, hisparse: Any = None) -> Any:
        return SimpleNamespace(
            watermark_config=watermark, attention_config=SimpleNamespace(hisparse_config=hisparse)
        )  # fmt: skip

    monkeypatch.delenv("VLLM_USE_V2_MODEL_RUNNER", raising=False)
    configuration._check_runner(config())
    assert "--watermark-config" in refused(configuration._check_runner, config(watermark=1))
    assert "HiSparse" in refused(configuration._check_runner, config(hisparse=1))
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
    assert "VLLM_USE_V2_MODEL_RUNNER" in refused(configuration._check_runner, config())


@pytest.mark.parametrize(
    ("mode", "graphs", "left"),
    [(None, GRAPHS, (None, 1)), (CompilationMode.NONE, GRAPHS, (CompilationMode.NONE, 1)),
     (CompilationMode.VLLM_COMPILE, GRAPHS, (CompilationMode.NONE, 1)), (None, NONE, (None, 0))],
)  # fmt: skip
def test_modes_of_compilation(mode: Any, graphs: Any, left: tuple[Any, int]) -> None:
    compilation = SimpleNamespace(mode=mode, cudagraph_mode=graphs, cudagraph_num_of_warmups=0)
    configuration._check_graph_mode(SimpleNamespace(compilation_config=compilation))
    assert (compilation.mode, compilation.cudagraph_num_of_warmups) == left


@pytest.mark.parametrize(
    ("dtype", "quantization", "chip", "rounds"),
    [(torch.float32, None, DUO, True), (torch.float32, "awq", DUO, False), (torch.float16, None, DUO, False),
     (torch.float32, None, A2, False)],
)  # fmt: skip
def test_weights_that_are_rounded(dtype: Any, quantization: Any, chip: chips.ChipSpec, rounds: bool) -> None:
    model = SimpleNamespace(dtype=dtype, quantization=quantization)
    assert configuration._rounds_weights(SimpleNamespace(model_config=model), chip) is rounds
    assert configuration._rounds_weights(SimpleNamespace(model_config=None), chip) is False


# ---------------------------------------------------------------------------------------- fields that are left out


def test_fields_that_transformers_leaves_out_are_there_for_vllm() -> None:
    """A checkpoint saved by transformers 5 says nothing of its position embeddings, which vLLM's class asks for."""
    gte = SimpleNamespace(model_type="gte")
    own = SimpleNamespace(model_type="gte", position_embedding_type="rotary")
    other = SimpleNamespace(model_type="qwen3")
    omni = Qwen3OmniMoeConfig(thinker_config={"text_config": {}})
    for config in (gte, own, other, omni):
        configuration.complete_fields(config)
    assert (gte.position_embedding_type, own.position_embedding_type) == ("rope", "rotary")
    assert not hasattr(other, "position_embedding_type")
    assert omni.thinker_config.text_config.tie_word_embeddings is False


def test_a_saved_roberta_is_configured(tmp_path: Path) -> None:
    """vLLM reads the kind of its positions while it makes the configuration, before a platform is asked."""
    compat.prepare_configuration()
    config = XLMRobertaConfig(architectures=["XLMRobertaModel"], num_hidden_layers=2)
    config.save_pretrained(tmp_path)
    assert "position_embedding_type" not in json.loads((tmp_path / "config.json").read_text())
    model = ModelConfig(model=str(tmp_path), skip_tokenizer_init=True, runner="pooling")
    assert model.hf_config.position_embedding_type == "absolute"
