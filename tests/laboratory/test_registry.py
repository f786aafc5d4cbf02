"""The registry's run: names, scaled configurations, what counts as right, and how results are kept."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from ascend_cli.errors import AscendError, UsageError
from ascend_facts import registry_results as kept
from ascend_facts.chips import find
from ascend_facts.model_results import Cell, ModelResult, Trial, standing
from ascend_facts.model_shape import read_model_shape
from ascend_facts.refused import refusal
from ascend_facts.registry_results import RegistryResult
from conformance.architectures import architectures
from conformance.forks import TIMED_OUT
from conformance.registry.command import registry
from conformance.registry.media_rows import kinds, media_results
from conformance.registry.names import data, registered, with_media
from conformance.registry.run import EXCUSED, Runner, outcome_of
from conformance.registry.scale import LAYERS, every_kind, scaled
from conformance.verify import Verifier, settings_for

QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "torch_dtype": "bfloat16",
}


def result(name: str, outcome: str, chip: str = "310P3", **more: object) -> RegistryResult:
    return RegistryResult(name, "text generation", chip, outcome, "why", **more)  # type: ignore[arg-type]


def test_the_registry_is_read_from_vllms_source() -> None:
    known = registered()
    assert known["LlamaForCausalLM"][0] == "text generation"
    assert known["BertModel"][0] == "pooling"
    assert sum(kind == "text generation" for kind, *_ in known.values()) > 100


def test_data_is_of_architectures_that_exist() -> None:
    assert set(data()) <= {*registered(), *with_media()}


def test_no_refused_architecture_is_called_right() -> None:
    for (name, chip), row in kept.load().items():
        assert refusal(name) is None or row.outcome != "right", f"{name} runs on {chip}: take its refusal away"


def test_a_configuration_is_scaled_and_keeps_what_code_depends_on() -> None:
    from transformers import Qwen3MoeConfig

    config = scaled(Qwen3MoeConfig, {"moe_intermediate_size": 64})
    assert (config["num_hidden_layers"], config["num_local_experts"], config["num_experts_per_tok"]) == (LAYERS, 16, 4)
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (4, 2)
    assert config["moe_intermediate_size"] == 64


def test_every_kind_of_layer_is_left() -> None:
    assert every_kind(["mamba"] * 7 + ["attention"] + ["mamba"] * 8, 4) == ["mamba", "mamba", "mamba", "attention"]
    assert every_kind(["a", "b", "c", "d", "e"], 3) == ["a", "b", "c"]


def cells(**outcomes: str) -> ModelResult:
    row = ModelResult("x", "text generation", "310P3")
    row.cells = {name.replace("_", " "): Cell(outcome, "why", 1.0) for name, outcome in outcomes.items()}  # type: ignore[arg-type]
    return row


def test_what_a_run_comes_to() -> None:
    assert outcome_of(cells(prefill="pass", prefix_cache="pass")) == ("right", "", ())
    assert outcome_of(cells(prefill="refused"))[0] == "refused"
    assert outcome_of(cells(prefill="pass", chunked_prefill="fails"))[:2] == ("wrong", "why")
    died = cells(prefill="pass")
    died.cells["prefill"] = Cell("fails", "the engine died")
    assert outcome_of(died)[:2] == ("neither", "the engine died")
    eager = cells(prefill="pass")
    eager.cells["decode, graph"] = Cell("fails", next(iter(EXCUSED)), 1.0)
    assert outcome_of(eager) == ("right", "", ("no graphs",))


class Spinning:
    """In the place of `Places`: an engine that never ends."""

    asked_s: list[int]

    def __init__(self) -> None:
        self.asked_s = []

    def chips(self, chip: str | None) -> Spinning:
        return self

    def replays(self) -> int:
        return 0

    def run(self, module: str, arguments: list[str], log: Path, timeout_s: int) -> int:
        self.asked_s.append(timeout_s)
        return TIMED_OUT


def test_an_engine_that_spins_is_given_up(tmp_path: Path) -> None:
    spinning = Spinning()
    architecture = architectures()["qwen3"]
    verifier = Verifier(architecture, spinning, tmp_path, tmp_path, print, engine_timeout_s=7)  # type: ignore[arg-type]
    answer = verifier.engine(tmp_path, "310P3", settings_for(architecture)[0])
    assert spinning.asked_s == [7] and answer.report["outcome"] == "failed"
    assert answer.report["message"].startswith("the engine gave no answer in 7 s, see qwen3-310P3-graph.log")


@pytest.mark.parametrize(
    ("name", "answers", "outcome", "asked"),
    [
        ("mixtral", ["pass"], "right", 1),
        ("mixtral", ["fails", "pass"], "right", 2),  # a flip that was carried on
        ("mixtral", ["fails", "fails"], "wrong", 2),
        ("qwen3", ["fails"], "wrong", 1),
    ],
)
def test_more_prompts_decide_where_rounding_may_pick_another_expert(
    name: str, answers: list[str], outcome: str, asked: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = {"architecture": asdict(architectures()[name])}
    given, left = [], list(answers)
    monkeypatch.setattr(Runner, "_build", lambda self, name, only_describe=False: built)

    def run(self: Verifier, chip: str, settings: list[str]) -> ModelResult:
        given.append(sum(map(len, self.prompts.all)))
        return cells(prefill=left.pop(0))

    monkeypatch.setattr(Verifier, "run", run)
    kept_results: list[RegistryResult] = []
    Runner(None, tmp_path, print).run("MixtralForCausalLM", ["310P3"], kept_results.append)  # type: ignore[arg-type]
    assert [row.outcome for row in kept_results] == [outcome] and len(given) == asked
    assert given == sorted(given) and len(set(given)) == asked


def test_the_faults_that_are_named_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = {"architecture": asdict(architectures()["qwen3"])}
    monkeypatch.setattr(Runner, "_build", lambda self, name, only_describe=False: built)
    monkeypatch.setattr(Verifier, "run", lambda self, chip, settings: cells(prefill="pass"))
    monkeypatch.setattr(Verifier, "checkpoint", lambda self: tmp_path)

    def catches(self: Verifier, fault: str, checkpoint: Path, chip: str) -> Trial:
        if fault == "dropped-sink":
            raise AscendError("The fault 'dropped-sink' changes nothing in qwen3.")
        return Trial(fault == "rope-theta")

    monkeypatch.setattr(Verifier, "catches", catches)
    rows: list[RegistryResult] = []
    runner = Runner(None, tmp_path, print)  # type: ignore[arg-type]
    runner.run("Qwen3ForCausalLM", ["310P3"], rows.append, ("dropped-sink", "rope-theta", "swapped-kv-heads"))
    assert rows[0].faults == {"rope-theta": True, "swapped-kv-heads": False} and not rows[0].good
    with pytest.raises(UsageError, match="--fault dropped-sinks is none of dropped-sink"):
        registry(["Qwen3ForCausalLM"], fault=["dropped-sinks"])


def test_results_survive_storage(tmp_path: Path) -> None:
    rows = [
        result("A", "right", notes=("no graphs",), faults={"dropped-sink": True}, versions={"vllm": "1"}),
        result("B", "refused", versions={"vllm": "2"}),
    ]
    everything = {(row.name, row.chip): row for row in rows}
    kept.store(tmp_path / "r.json", everything)
    assert kept.load(tmp_path / "r.json") == everything
    assert kept.load(tmp_path / "none.json") == {}


def test_the_count_leaves_out_what_could_not_be_built() -> None:
    rows = [result("A", "right"), result("B", "refused"), result("C", "not built"), result("D", "right", "910B3")]
    counted = kept.counts(rows, dict.fromkeys("ABCD", "text generation"))
    assert counted["310P3", "text generation"] == {
        "right": 1,
        "refused": 1,
        "not built": 1,
        "not run": 1,
        kept.UNBUILT: 0,
    }
    assert kept.share_right(counted["310P3", "text generation"]) == pytest.approx(1 / 3)
    assert kept.share_right(counted["910B3", "text generation"]) == 0.25, "what was not run is not right"


def test_what_was_refused_counts_if_it_could_have_been_built() -> None:
    rows = [result("A", "right"), result("B", "refused"), result("C", "refused", notes=(kept.UNBUILT,))]
    counted = kept.counts(rows, dict.fromkeys("ABC", "text generation"))["310P3", "text generation"]
    assert (counted["refused"], counted[kept.UNBUILT]) == (2, 1)
    assert kept.share_right(counted) == 0.5


def test_architectures_with_media_are_counted_from_their_rows() -> None:
    def row(name: str, architecture: str, *outcomes: str) -> ModelResult:
        cells = {str(place): Cell(outcome, "why") for place, outcome in enumerate(outcomes)}  # type: ignore[arg-type]
        return ModelResult(name, "multimodal", "310P3", cells=cells, architecture=architecture)

    rows = [
        row("a", "Qwen3VLForConditionalGeneration", "pass", "refused"),
        row("b", "LlavaForConditionalGeneration", "pass"),
        row("c", "LlavaForConditionalGeneration", "fails"),
        row("d", "WhisperForConditionalGeneration", "refused"),
        row("e", "Qwen2_5OmniForConditionalGeneration", "pass"),
    ]
    found = {one.name: one.outcome for one in media_results(rows, ["310P3"])}
    assert found["Qwen3VLForConditionalGeneration"] == "right"
    assert found["LlavaForConditionalGeneration"] == "neither", "one of its rows ended in an error"
    assert found["WhisperForConditionalGeneration"] == "refused"
    assert found["Qwen2_5OmniModel"] == "right", "vLLM has the same class under both names"
    assert "Qwen2VLForConditionalGeneration" not in found, "without a row it was not run"
    assert found["MolmoForCausalLM"] == "not built", "its mathematics is in no package"
    assert "InternVLChatModel" not in found, "transformers builds it under another name"
    assert not set(kinds()) & set(registered()), "each architecture is counted once"


@pytest.mark.parametrize(
    ("outcome", "said"), [("right", "run"), ("refused", "refused"), ("wrong", "refused"), ("neither", "not run yet")]
)
def test_a_structure_without_a_row_stands_as_its_architecture_does(outcome: str, said: str) -> None:
    registry = {("Qwen3ForCausalLM", "310P3"): result("Qwen3ForCausalLM", outcome)}
    assert standing(read_model_shape(QWEN3), find("310P3"), [], registry).outcome == said
