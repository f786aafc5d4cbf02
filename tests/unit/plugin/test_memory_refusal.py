"""What the engine refuses before it reads a weight: only what the arithmetic surely counts."""

from __future__ import annotations

import json
import logging
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ascend_facts.chips import find
from ascend_plugin import detection, memory

DUO = find("310P3")
ROWS = {
    row["name"]: row["config"]
    for row in json.loads((Path(__file__).parents[1] / "cli/data/published_models.json").read_text(encoding="utf-8"))
}
QWEN3_32B, STARCODER2_15B = ROWS["Qwen/Qwen3-32B"], ROWS["bigcode/starcoder2-15b"]


@pytest.fixture(autouse=True)
def _a_duo_chip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "current_chip", lambda: DUO)


def plan(
    config: dict[str, Any], ranks: int = 1, quantization: str | None = None, model: str = "model", stages: int = 1
) -> Any:
    """plan_or_refuse for a server of 512 tokens a step, as vLLM's configuration would be."""
    settings = SimpleNamespace(
        model_config=SimpleNamespace(
            hf_config=SimpleNamespace(to_dict=lambda: config),
            quantization=quantization,
            dtype=torch.float16,
            model=model,
            enforce_eager=False,
        ),
        parallel_config=SimpleNamespace(
            tensor_parallel_size=ranks,
            pipeline_parallel_size=stages,
            enable_expert_parallel=False,
            world_size_across_dp=ranks,
        ),
        scheduler_config=SimpleNamespace(max_num_batched_tokens=512, max_num_seqs=256),
        cache_config=SimpleNamespace(block_size=128),
    )
    total = DUO.usable_memory_bytes(0)
    return memory.plan_or_refuse(settings, total, int(0.92 * total))  # type: ignore[arg-type]


def test_a_model_that_cannot_fit_is_refused_with_the_size_that_does() -> None:
    with pytest.raises(memory.ModelDoesNotFit, match=r"61\.0 GiB of fp16 weights.*--tensor-parallel-size 2"):
        plan(QWEN3_32B)
    assert plan(QWEN3_32B, ranks=2).weights_bytes == pytest.approx(30.5 * 2**30, rel=0.01)


def test_a_model_of_two_matrices_is_not_refused() -> None:
    """StarCoder2-15B takes 29.7 GiB of the 39.8 that one chip may use: counted with three matrices it was refused."""
    assert plan(STARCODER2_15B).weights_bytes == pytest.approx(29.7 * 2**30, rel=0.01)


def test_what_the_engine_may_use_is_its_share_of_the_chip() -> None:
    total = DUO.usable_memory_bytes(0)
    assert plan(STARCODER2_15B).budget_bytes == pytest.approx(0.92 * total, rel=1e-6)


def test_a_family_that_no_published_total_holds_is_tried(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert plan({**QWEN3_32B, "model_type": "something_new"}) is None


def test_a_pipeline_is_tried() -> None:
    assert plan({**QWEN3_32B, "num_hidden_layers": 200}, stages=2) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"num_key_value_heads": [8, 4]},
        {"text_config": "none"},
        {"num_experts": 64, "moe_intermediate_size": [3072, 1]},
        {"hidden_size": None},
        {"layer_types": 3},
    ],
)
def test_what_cannot_be_read_is_for_the_loader_to_judge(changes: dict[str, Any]) -> None:
    assert plan({**QWEN3_32B, **changes}) is None


def test_lists_of_equal_sizes_are_read() -> None:
    """Hunyuan-A13B names its experts' width, count a token and shared experts once a layer."""
    assert plan(ROWS["tencent/Hunyuan-A13B-Instruct"], ranks=8).weights_bytes > 10 * 2**30


def test_formats_count_as_they_lie_in_memory(tmp_path: Path) -> None:
    awq = {**QWEN3_32B, "quantization_config": {"quant_method": "awq", "bits": 4}}
    assert plan(awq, quantization="awq").request.weight_format == "w8a8"
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_32B))
    assert plan(QWEN3_32B, quantization="ascend", model=str(tmp_path)).request.weight_format == "w8a8"
    assert plan(QWEN3_32B, quantization="a-flag-of-the-user") is None


def test_tensors_of_the_checkpoint_come_before_the_configuration(tmp_path: Path) -> None:
    """A file that says 64 layers over a checkpoint of one matrix: what is loaded is what counts."""
    header = json.dumps({"model.layers.0.mlp.up_proj.weight": {"dtype": "F16", "shape": [25600, 5120]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert plan(QWEN3_32B, model=str(tmp_path)).weights_bytes == 2 * 25600 * 5120
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(memory.ModelDoesNotFit):
        plan(QWEN3_32B, model=str(tmp_path))
