"""`ascend models NAME` and what `ascend plan` says of results: run, not run yet, refused and why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ascend_cli.models.command import _releases, release_of
from ascend_facts import chips
from ascend_facts.model_results import Cell, ModelResult, shipped, standing
from ascend_facts.model_shape import read_model_shape
from ascend_facts.quantized_format import Quantization

from .conftest import QWEN3_32B, Ascend

DUO, A2, A5 = chips.find("310P3"), chips.find("910B4"), chips.find("950DT")
SHAPE = read_model_shape(QWEN3_32B)
MLA = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}


def row(outcome: str, chip: str = "310P3", architecture: str = "Qwen3ForCausalLM") -> ModelResult:
    cells = {"prefill": Cell(outcome, "")}  # type: ignore[arg-type]
    return ModelResult("some-row", "dense", chip, cells=cells, architecture=architecture)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("Qwen3-30B-A3B", ["qwen3-moe"]),
        ("Qwen/Qwen3-30B-A3B-FP8", ["qwen3-moe-fp8"]),
        ("Qwen3-8B-AWQ", ["qwen3-awq"]),
        ("Qwen3-Coder-480B-A35B-Instruct", ["qwen3-moe"]),
        ("Qwen2.5-7B-Instruct", ["qwen2"]),
        ("DeepSeek-R1-Distill-Qwen-32B", ["qwen2"]),
        ("DeepSeek-R1-Distill-Llama-8B", ["llama3"]),
        ("meta-llama/Llama-3.1-8B-Instruct", ["llama3"]),
        ("Mistral-7B-Instruct-v0.3", ["mistral"]),
        ("phi-4", ["phi4"]),
        ("Phi-4-mini-instruct", ["phi4-mini"]),
        ("bge-m3", ["xlm-roberta"]),
        ("bge-reranker-v2-m3", ["xlm-roberta-classifier"]),
        ("GLM-4-9B-0414", ["glm4-0414"]),
        ("Qwen3.5-35B-A3B", ["qwen3_5-moe", "qwen3_5-vl-moe"]),
        ("DeepSeek-V3", []),
        ("Kimi-K2-Instruct", []),
        ("Qwen2.5-VL-7B-Instruct", ["qwen2.5-vl"]),
        ("Qwen3-VL-30B-A3B-Instruct", ["qwen3-vl-moe"]),
        ("Qwen/Qwen3-VL-8B-Instruct", ["qwen3-vl"]),
        ("Qwen3-VL-8B-Instruct-FP8", []),
        ("Qwen3-VL-Embedding-8B", []),
        ("GLM-4.5V", ["glm-4.5v"]),
        ("LFM2-VL-1.6B", ["lfm2-vl"]),
        ("LFM2-1.2B", []),
        ("gemma-3-27b-it", ["gemma3-vl"]),
        ("Qwen2.5-Omni-7B", ["qwen2.5-omni"]),
    ],
)
def test_releases_point_to_what_was_run(name: str, rows: list[str]) -> None:
    release = release_of(name)
    assert release is not None
    assert release["rows"] == rows
    assert bool(release.get("why") or release.get("architecture")) == (not rows)


def test_every_release_points_to_rows_that_exist() -> None:
    known = {result.name for result in shipped().values()}
    assert {name for release in _releases() for name in release["rows"]} <= known


def test_a_release_without_a_file_is_answered(ascend: Ascend) -> None:
    answer = ascend("models", "Llama-3.1-70B-Instruct", "--chip", "310P3", "--json")
    assert [(result["name"], result["chip"]) for result in answer.json["results"]] == [("llama3", "310P3")]
    refused = ascend("models", "deepseek-v3.2")
    assert refused.code == 0
    assert "indexer" in refused.out
    assert "names no row" in ascend("models", "nonsense-9").error_line


def test_the_architecture_of_a_folder_decides(ascend: Ascend, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**QWEN3_32B, "architectures": ["MixtralForCausalLM"]}))
    assert {result["name"] for result in ascend("models", folder, "--json").json["results"]} == {"mixtral"}
    (folder / "config.json").write_text(json.dumps({**QWEN3_32B, "architectures": ["Qwen3_5ForConditionalGeneration"]}))
    assert {result["name"] for result in ascend("models", folder, "--json").json["results"]} == {
        "qwen3_5",
        "qwen3_5-vl",
    }
    (folder / "config.json").write_text(json.dumps({**QWEN3_32B, "architectures": {"no": "list"}}))
    assert ascend("models", folder, "--json").json["results"] == []


def test_a_structure_that_was_run_stands_so() -> None:
    known = standing(SHAPE, DUO, [row("pass"), row("fails", "910B3")])
    assert (known.outcome, known.rows) == ("run", ("some-row",))
    assert "310P3" in known.detail
    assert standing(SHAPE, A2, [row("pass", "910B3")]).outcome == "run"  # the family's chip stands for it
    assert standing(SHAPE, A2, [row("pass", "310P3")], {}).outcome == "not run yet"


def test_wrong_answers_and_formats_are_refused() -> None:
    wrong = standing(SHAPE, DUO, [row("fails")])
    assert (wrong.outcome, "some-row" in wrong.detail) == ("refused", True)
    four_bits = replace(SHAPE, stored=Quantization("nvfp4", 4, is_float=True, kind="nvfp4"))
    assert standing(four_bits, DUO, [row("pass")]).outcome == "refused"


def test_what_nobody_ran_is_not_inferred() -> None:
    assert standing(SHAPE, DUO, [row("pass", architecture="LlamaForCausalLM")], {}).outcome == "not run yet"
    assert standing(SHAPE, A5, [row("pass", "950DT")]).outcome == "not run yet"
    latent = read_model_shape({**QWEN3_32B, **MLA})
    assert standing(latent, DUO, [], {}).outcome == "not run yet"
    assert standing(latent, DUO, [row("pass")]).outcome == "run"  # results come first


def test_a_language_model_stands_for_itself_without_pictures() -> None:
    shape = replace(SHAPE, architecture="Gemma3ForConditionalGeneration")
    known = standing(shape, DUO, [row("pass", architecture="Gemma3ForCausalLM")])
    assert known.outcome == "run"
    assert "without pictures" in known.detail


def test_plan_offers_no_command_for_what_is_refused(ascend: Ascend, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**QWEN3_32B, "architectures": ["DeepseekV32ForCausalLM"]}))
    answer = ascend("plan", tmp_path, "--chip", "910_9391", "--chips", "64", "--json")
    plan = answer.json["plan"]
    assert answer.code == 1
    assert (plan["standing"]["outcome"], plan["serve"]) == ("refused", None)
    assert any("indexer" in line for line in plan["advice"])


def test_plan_says_what_was_run(ascend: Ascend) -> None:
    plan = ascend("plan", "qwen3-8b", "--chip", "310P3", "--chips", "2", "--json").json["plan"]
    assert plan["standing"]["outcome"] == "run"
    assert plan["serve"].startswith("ascend serve Qwen/Qwen3-8B -- ")
