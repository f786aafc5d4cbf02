"""The data, the judgement and the page: everything that needs neither torch nor an engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ascend_cli.errors import UsageError
from ascend_facts.model_results import FEATURES, Cell, ModelResult, Trial, load, merge, settled, shipped, store
from conformance.architectures import QUICK, architectures, select
from conformance.compare import LIMIT, Verdict, errors, judge
from conformance.faults import FAULTS, MEANINGS, ON_PROMPTS, WRONG_HISTORY, misread
from conformance.places import Places
from conformance.prompts import CHUNK_TOKENS, make_prompts
from conformance.table import render, write
from conformance.table_texts import CHINESE
from conformance.verify import Answer, Verifier


@pytest.mark.parametrize("architecture", architectures().values(), ids=lambda entry: entry.name)
def test_every_architecture_has_known_faults(architecture) -> None:
    assert architecture.faults
    assert set(architecture.faults) <= {*FAULTS, *ON_PROMPTS, WRONG_HISTORY}
    assert architecture.published.count("/") == 1


def test_every_fault_is_explained() -> None:
    assert set(MEANINGS) == {*FAULTS, *ON_PROMPTS, WRONG_HISTORY}


def test_names_and_groups_select() -> None:
    assert [entry.name for entry in select(["qwen3", "qwen3"])] == ["qwen3"]
    assert {entry.group for entry in select(["moe"])} == {"moe"}
    assert [entry.name for entry in select([], quick=True)] == list(QUICK)
    with pytest.raises(UsageError, match=r"qwen33.*qwen3, "):
        select(["qwen33"])


def test_prompts_reach_over_a_chunk_and_stay_in_the_vocabulary() -> None:
    prompts = make_prompts(322, "generate")
    assert sum(len(prompt) for prompt in prompts.whole) <= CHUNK_TOKENS < max(map(len, prompts.chunked))
    assert max(max(prompt) for prompt in prompts.all) < 322
    assert make_prompts(322, "generate") == prompts


def test_misreading_changes_only_what_comes_before_the_chunk_boundary() -> None:
    prompt = make_prompts(384, "generate").chunked[-1]
    changed = [position for position, (a, b) in enumerate(zip(prompt, misread(prompt), strict=True)) if a != b]
    assert changed and min(changed) >= CHUNK_TOKENS - 32 and max(changed) < CHUNK_TOKENS
    assert misread(prompt[:CHUNK_TOKENS]) == prompt[:CHUNK_TOKENS]


def test_noise_passes_and_more_than_noise_does_not() -> None:
    rng = np.random.default_rng(0)
    noise = np.abs(rng.normal(0.01, 0.002, 500))
    for factor, good in ((1.5, True), (LIMIT + 0.1, False)):
        assert judge(noise * factor, noise, (noise * factor, noise), routed=False).good == good


def test_one_wrong_position_fails_a_dense_model_and_a_rare_flip_passes_a_routed_one() -> None:
    noise = np.full(200, 0.01)
    error = noise.copy()
    error[7] = 1.0
    assert not judge(error, noise, (error, noise), routed=False).good
    assert judge(error, noise, (error, noise), routed=True).good
    error[:20] = 1.0
    assert not judge(error, noise, (error, noise), routed=True).good


def test_a_flip_that_lasts_in_one_short_sequence_passes_and_a_wrong_kind_of_position_does_not() -> None:
    noise, rest = np.full(40, 0.01), np.full(1000, 0.01)
    error = noise.copy()
    error[:8] = 0.2  # one sequence of four after its flip
    whole = np.concatenate([error, rest]), np.concatenate([noise, rest])
    assert judge(error, noise, whole, routed=True).good
    error[:] = 0.04
    whole = np.concatenate([error, rest]), np.concatenate([noise, rest])
    assert not judge(error, noise, whole, routed=True).good


def test_an_answer_that_is_no_number_fails() -> None:
    error = np.full(10, np.nan)
    assert not judge(error, np.ones(10), (error, np.ones(10)), routed=True).good


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\(3, 384\).*\(4, 384\)"):
        errors(np.zeros((3, 384)), np.zeros((4, 384)))


def test_results_survive_storage_and_later_runs_replace_only_their_cells(tmp_path: Path) -> None:
    old, new = {"date": "2026-01-01", "versions": {"vllm": "1"}}, {"date": "2026-01-02", "versions": {"vllm": "2"}}
    first = ModelResult("qwen3", "dense", "310P3", "float16", faults={"rope-theta": Trial(True, **old)})
    first.cells = {"prefill": Cell("pass", "fine", 1.0, 1.2, **old), "TP 2": Cell("fails", "died", **old)}
    second = ModelResult("qwen3", "dense", "310P3", "float16")
    second.cells = {"TP 2": Cell("pass", "fine", 1.1, 1.3, **new)}
    everything = merge(merge({}, first), second)
    store(tmp_path / "models.json", everything)
    kept = load(tmp_path / "models.json")
    assert kept == everything
    row = kept["qwen3", "310P3"]
    assert row.good and row.dates == ("2026-01-01", "2026-01-02")
    assert [(cell.date, cell.versions["vllm"]) for cell in row.cells.values()] == [
        ("2026-01-01", "1"),
        ("2026-01-02", "2"),
    ]


def test_results_of_another_schema_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "models.json").write_text('{"schema": "ascend.models/1", "results": []}')
    with pytest.raises(ValueError, match=r"ascend\.models/1"):
        load(tmp_path / "models.json")


def test_the_page_marks_what_was_run_in_other_versions() -> None:
    row = ModelResult("qwen3", "dense", "310P3", "float16")
    row.cells = {name: Cell("pass", "", 0.5, 1.0, "2026-01-02", {"vllm": "2"}) for name in ("prefill", "prefix cache")}
    row.cells["TP 2"] = Cell("pass", "", 0.7, 1.0, "2026-01-01", {"vllm": "1"})
    page = render({("qwen3", "310P3"): row}, architectures())
    assert "| pass 0.5 | pass 0.5 | pass 0.7¹ | 2026-01-01 to 2026-01-02 |" in page
    assert "\nVersions: vllm 2.\n" in page and "\n¹ Versions: vllm 1.\n" in page


def test_only_failures_are_run_again() -> None:
    faults = {"rope-theta": Trial(True), "swapped-kv-heads": Trial(False)}
    row = ModelResult("qwen3", "dense", "310P3", faults=faults)
    row.cells = {"prefill": Cell("pass", "fine"), "TP 2": Cell("fails", "died"), "EP 2": Cell("refused", "no")}
    results = merge({}, row)
    assert settled(results, "qwen3", "310P3") == {"prefill", "EP 2", "rope-theta"}
    assert settled(results, "qwen3", "910B3") == set()


def test_the_page_gives_the_reason_of_what_does_not_pass() -> None:
    row = ModelResult("gemma2", "dense", "310P3")
    row.cells = {"prefill": Cell("refused", "310P3 has no bfloat16")}
    row.faults = {"rope-theta": Trial(True), "shifted-window": Trial(False)}
    page = render({("gemma2", "310P3"): row}, architectures())
    assert "| refused |" in page
    assert "`gemma2`: refused: 310P3 has no bfloat16" in page
    assert "* **shifted-window**: " in page
    assert "| dense | `gemma2` | 310P3 | rope-theta | shifted-window |" in page


def test_the_chinese_page_has_a_word_for_everything() -> None:
    assert set(CHINESE.features) == set(FEATURES)
    assert set(CHINESE.faults) == set(MEANINGS)
    assert set(CHINESE.groups) == {entry.group for entry in architectures().values()}


def test_the_shipped_pages_are_written_from_the_shipped_results(tmp_path: Path) -> None:
    write(tmp_path / "models.md", shipped(), architectures())
    docs = Path(__file__).parents[2] / "docs"
    for page in ("models.md", "zh/models.md"):
        assert (docs / page).read_text(encoding="utf-8") == (tmp_path / page).read_text(encoding="utf-8"), page


def test_right_decoding_without_graphs_passes_nowhere_and_is_excused_where_the_row_says_why(tmp_path: Path) -> None:
    excused = architectures()["llama4-vl"]
    for architecture, good, outcome in (
        (excused, True, "impossible"),
        (excused, False, "fails"),
        (architectures()["qwen3"], True, "fails"),
    ):
        with Places() as places:
            verifier = Verifier(architecture, places, tmp_path, tmp_path, say=lambda text: None)
        verdicts = dict.fromkeys(("whole new", "chunked new"), Verdict(1.0, 1.5, 2.0, 0.0, 9, good))
        for mode in ("NONE", "FULL_DECODE_ONLY"):  # switched off at once, or by the attention once the model is loaded
            answer = Answer({"graphs": mode, "cached_tokens": 1}, {}, replays=0)
            assert verifier._cell("decode, graph", answer, verdicts).outcome == outcome
        cached = {"again new": Verdict(1.0, 1.5, 2.0, 0.0, 9, True)}
        assert verifier._cell("prefix cache", answer, cached).outcome == "pass"
