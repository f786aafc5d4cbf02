"""Counting a checkpoint's tensors, naming its format, keeping results: each figure worked out by hand."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ascend_facts import checkpoint, environment, model_results, probes
from ascend_facts.checkpoint import Tensor, is_complete, measured, tensors
from ascend_facts.chips import find
from ascend_facts.model_results import Cell, ModelResult, Standing, Trial, merge, settled, standing
from ascend_facts.model_shape import ModelShape, Weights, read_model_shape
from ascend_facts.quantized_format import Quantization, held_format, not_run, read_quantization
from ascend_facts.safetensors_file import BrokenCheckpoint
from ascend_facts.versions import Row

# ------------------------------------------------------------------------------------------------- checkpoints


def write(file: Path, entries: dict[str, tuple[str, list[int]]]) -> None:
    header = json.dumps({"__metadata__": {"format": "pt"}} | {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]} for name, (dtype, shape) in entries.items()
    }).encode()  # fmt: skip
    file.write_bytes(struct.pack("<Q", len(header)) + header)


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "bits", "size_bytes", "weights"),
    [
        ("a.weight", "F16", (3, 5), 16, 30, 15),
        ("a.weight", "F32", (3, 5), 16, 60, 15),
        ("a.weight", "F4", (3, 4), 16, 6, 12),
        ("a.qweight", "I32", (3, 5), 4, 60, 120),  # eight weights in each
        ("a.qweight", "I32", (3, 5), 8, 60, 60),
        ("a.weight_packed", "I32", (3, 5), 4, 60, 120),
        ("a.blocks", "U8", (3, 5), 4, 15, 30),
        ("a.weight", "I8", (3, 5), 4, 15, 30),
        ("a.weight", "U8", (3, 5), 4, 15, 30),
        ("a.weight", "I8", (3, 5), 8, 15, 15),
        ("a.weight", "F16", (3, 5), 4, 30, 15),
        ("a.weight", "BOOL", (), 16, 1, 1),
        ("a.weight", "F64", (0, 5), 16, 0, 0),
    ],
)
def test_tensors(name: str, dtype: str, shape: tuple[int, ...], bits: int, size_bytes: int, weights: int) -> None:
    tensor = Tensor(name, dtype, shape)
    assert tensor.size_bytes == size_bytes
    assert tensor.weights(bits) == weights


SHAPE = ModelShape(
    "A", "llama", "float16", None, 2, 2, 4, 2, 2, 2, 6, 9, 100,
    (Weights("embedding", 1, 0, True, False), Weights("lm_head", 36, 36, True, False)), (),
)  # fmt: skip
EXPERTS = replace(SHAPE, weights=(*SHAPE.weights, Weights("experts", 9, 3, True, True, experts=3, experts_per_token=2)))
TIED = replace(SHAPE, weights=(Weights("lm_head", 0, 36, True, False),))


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("model.embed_tokens.weight", (9, 4), "embedding"),
        ("model.norm.weight", (4,), "norms"),
        ("lm_head.weight", (9, 4), "lm_head"),
        ("output.weight", (9, 4), "lm_head"),
        ("embed_out.weight", (9, 4), "lm_head"),
        ("model.language_model.lm_head.weight", (9, 4), "lm_head"),
        ("model.layers.0.self_attn.q_proj.weight", (4, 4), "attention"),
        ("transformer.h.1.attention.dense.weight", (4, 4), "attention"),
        ("transformer.h.1.query_key_value.weight", (4, 4), "attention"),
        ("model.layers.1.mlp.up_proj.weight", (4, 4), "mlp"),
        ("model.layers.1.mlp.gate.weight", (4, 4), "mlp"),
        ("model.layers.1.input_layernorm.weight", (4,), "norms"),
        ("model.layers.1.mlp.experts.0.up_proj.weight", (4, 4), "mlp"),
        ("model.layers.1.linear_attn.out_proj.weight", (4, 4), "linear attention"),
        ("model.layers.1.mixer.in_proj.weight", (4, 4), "linear attention"),
        ("model.layers.1.mamba.in_proj.weight", (4, 4), "linear attention"),
        ("model.layers.2.mlp.up_proj.weight", (4, 4), None),  # the model has two layers: this one drafts
        ("mtp.layers.0.mlp.up_proj.weight", (4, 4), None),
        ("model.mtp.fc.weight", (4, 4), None),
        ("visual.blocks.7.attn.qkv.weight", (4, 4), "vision"),
        ("model.visual.patch_embed.weight", (4, 4), "vision"),
        ("vision_tower.encoder.weight", (4, 4), "vision"),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", (2,), None),
        ("model.layers.0.self_attn.q_proj.weight_scale", (4, 1), None),
        ("model.layers.0.self_attn.k_scale", (), None),
    ],
)
def test_kinds_of_tensors(name: str, shape: tuple[int, ...], kind: str | None) -> None:
    assert checkpoint._kind(Tensor(name, "F16", shape), SHAPE) == kind


def test_kinds_that_depend_on_the_model() -> None:
    def kind(name: str, shape: ModelShape) -> str | None:
        return checkpoint._kind(Tensor(name, "F16", (4, 4)), shape)

    assert kind("lm_head.weight", TIED) is None, "it is a copy of the embedding"
    assert kind("model.layers.1.mlp.experts.0.up_proj.weight", EXPERTS) == "experts"
    assert kind("model.layers.1.mlp.gate.weight", EXPERTS) == "router"
    assert kind("model.layers.1.mlp.router.weight", EXPERTS) == "router"
    assert kind("model.layers.1.mlp.gate_proj.weight", EXPERTS) == "mlp"


FILES = {
    "model.embed_tokens.weight": ("F16", [9, 4]),
    "lm_head.weight": ("F16", [9, 4]),
    "model.norm.weight": ("F32", [4]),
    "model.layers.0.self_attn.q_proj.weight": ("F16", [4, 4]),
    "model.layers.0.mlp.experts.0.up_proj.weight": ("F16", [5, 4]),
    "model.layers.0.mlp.gate.weight": ("F16", [3, 4]),
}


def test_a_checkpoint_is_counted(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", FILES)
    found = {weights.kind: weights for weights in measured(EXPERTS, tmp_path).weights}
    assert found == {
        "embedding": Weights("embedding", 36, 0, True, False),
        "lm_head": Weights("lm_head", 36, 36, True, False),
        "norms": Weights("norms", 4, 4, False, False),
        "attention": Weights("attention", 16, 16, True, True),
        "experts": Weights("experts", 20, 13, True, True, 3, 2),  # two of three: 13 and a third
        "router": Weights("router", 12, 12, False, False),
    }
    assert isinstance(found["experts"].per_token, int)
    assert measured(replace(EXPERTS, is_counted=False), tmp_path).is_counted
    tied = {weights.kind: weights for weights in measured(TIED, tmp_path).weights}
    assert tied["lm_head"] == Weights("lm_head", 0, 36, True, False)


def test_small_weights_are_counted_beside_plain_ones(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", {
        "model.layers.0.self_attn.q_proj.qweight": ("I32", [2, 4]),
        "model.layers.0.self_attn.q_proj.scales": ("F16", [2, 4]),
        "model.layers.0.self_attn.o_proj.weight": ("F16", [3, 4]),
        "model.layers.0.mlp.up_proj.weight": ("I8", [5, 4]),
    })  # fmt: skip
    stored = Quantization("awq", 4)
    found = measured(replace(SHAPE, quantization="awq", stored=stored), tmp_path).weights
    assert found == (
        Weights("attention", 64, 64, True, True),
        Weights("attention", 12, 12, True, False),
        Weights("mlp", 40, 40, True, True),
    )


def test_which_files_count(tmp_path: Path) -> None:
    assert not is_complete(tmp_path) and list(tensors(tmp_path)) == [] and measured(SHAPE, tmp_path) is SHAPE
    write(tmp_path / "model-1.safetensors", {"model.norm.weight": ("F16", [4])})
    write(tmp_path / "consolidated.safetensors", {"norm.weight": ("F16", [4])})
    assert is_complete(tmp_path)
    assert [tensor.name for tensor in tensors(tmp_path)] == ["model.norm.weight"]
    index = tmp_path / "model.safetensors.index.json"
    for names, whole in ((["model-1.safetensors"], True), (["model-1.safetensors", "model-2.safetensors"], False)):
        index.write_text(json.dumps({"weight_map": {str(number): name for number, name in enumerate(names)}}))
        assert is_complete(tmp_path) is whole
    assert measured(SHAPE, tmp_path) is SHAPE, "a file is missing"
    for text in ("[]", "{}", '{"weight_map": {"a": 3}}', "no", '{"weight_map": []}'):
        index.write_text(text)
        assert not is_complete(tmp_path)
    (tmp_path / "only").mkdir()
    write(tmp_path / "only" / "consolidated.safetensors", {"norm.weight": ("F16", [4])})
    assert len(list(tensors(tmp_path / "only"))) == 1


@pytest.mark.parametrize(
    "entry", [3, None, {"dtype": "F16"}, {"shape": [1]}, {"dtype": "X", "shape": [1]}, {"dtype": "F16", "shape": [-1]},
              {"dtype": "F16", "shape": "11"}, {"dtype": "F16", "shape": [1.5]}],
)  # fmt: skip
def test_tensors_that_are_none_are_named(entry: Any, tmp_path: Path) -> None:
    content = json.dumps({"strange": entry}).encode()
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(content)) + content)
    with pytest.raises(BrokenCheckpoint, match="'strange'"):
        list(tensors(tmp_path))


@pytest.mark.parametrize("content", [b"", b"1234567", struct.pack("<Q", 1) + b"{", struct.pack("<Q", (100 << 20) + 1)])
def test_headers_that_are_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(BrokenCheckpoint, match="is no safetensors file, or is cut"):
        list(tensors(tmp_path))


def test_the_shortest_header(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    assert list(tensors(tmp_path)) == []
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", 2) + b"[]")
    with pytest.raises(BrokenCheckpoint, match="no object"):
        list(tensors(tmp_path))


# ----------------------------------------------------------------------------------------------------- formats


def stored(**section: Any) -> Quantization:
    return read_quantization({"quantization_config": section}, {})


@pytest.mark.parametrize(
    ("size", "read"),
    [(64, 64), (8, 8), (7, 128), (1 << 20, 1 << 20), ((1 << 20) + 1, 128), (True, 128), ("64", 128), (-1, 128)],
)
def test_sizes_of_groups(size: Any, read: int) -> None:
    assert stored(quant_method="awq", group_size=size).group_size == read
    assert stored(quant_method="awq", q_group_size=size).group_size == read
    groups = {"g": {"weights": {"group_size": size, "num_bits": 4}}}
    assert stored(quant_method="compressed-tensors", config_groups=groups).group_size == read


def test_compressed_tensors_take_their_first_group() -> None:
    groups = {"odd": 3, "a": {"weights": {"num_bits": 4, "type": "int"}, "input_activations": {"num_bits": 8}},
              "b": {"weights": {"num_bits": 8}}}  # fmt: skip
    found = stored(quant_method="compressed-tensors", config_groups=groups, format="pack-quantized")
    assert (found.bits, found.is_float, found.activation_bits, found.kind) == (4, False, 8, "pack-quantized")
    silent = stored(quant_method="compressed-tensors", config_groups={"a": {"weights": {}}}, format="float-quantized")
    assert (silent.bits, silent.is_float, silent.activation_bits) == (8, True, 16)
    floats = stored(quant_method="compressed-tensors", config_groups={"a": {"weights": {"type": "float"}}})
    assert (floats.bits, floats.is_float, floats.kind) == (8, True, "int-quantized")
    assert stored(quant_method="compressed-tensors").bits == 8


@pytest.mark.parametrize(
    ("kind", "bits", "activations"),
    [("W8A8", 8, 8), ("w8a8_dynamic", 8, 8), ("W4A8", 4, 8), ("W4A4_DYNAMIC", 4, 4), ("W8A16", 8, 16),
     ("W16A16", 16, 16)],
)  # fmt: skip
def test_kinds_of_modelslim(kind: str, bits: int, activations: int) -> None:
    found = stored(quant_method="ascend", model_quant_type=kind)
    assert (found.bits, found.activation_bits, found.kind) == (bits, activations, kind.upper())


DUO, A2 = find("310P3"), find("910B3")


@pytest.mark.parametrize(
    ("quantization", "duo", "a2"),
    [
        (Quantization(), "fp16", "fp16"),
        (Quantization("x", 16), "fp16", "fp16"),
        (Quantization("fp8", 8, True, 8), "fp16", "fp16"),
        (Quantization("x", 4, True), "w4a4", "w4a4"),
        (Quantization("x", 8, activation_bits=8), "w8a8", "w8a8"),
        (Quantization("x", 8), "w8a16", "w8a16"),
        (Quantization("x", 4, activation_bits=8), "w4a8", "w4a8"),
        (Quantization("x", 4, activation_bits=4), "w4a4", "w4a4"),
        (Quantization("awq", 4), "w8a8", "w4a16"),
    ],
)
def test_formats_as_they_are_held(quantization: Quantization, duo: str, a2: str) -> None:
    assert (held_format(quantization, DUO), held_format(quantization, A2)) == (duo, a2)
    assert held_format(quantization, DUO, "float32") == "fp16+fp32"
    assert held_format(quantization, A2, "float32") == "fp32"


def test_four_bits_of_experts_take_two_bytes_without_a_product_of_theirs() -> None:
    assert held_format(Quantization("awq", 4), DUO, has_experts=True) == "fp16"
    assert held_format(Quantization("awq", 4), A2, has_experts=True) == "w4a16"


@pytest.mark.parametrize(
    ("quantization", "word"),
    [
        (Quantization(), ""),
        (Quantization("ascend", 8, activation_bits=8, kind="W8A8"), ""),
        (Quantization("ascend", 8, activation_bits=8, kind="W8A8_DYNAMIC"), ""),
        (Quantization("ascend", 4, activation_bits=8, kind="W4A8"), "W4A8, which is not read yet"),
        (Quantization("awq", 4, kind="awq of 4 bits"), ""),
        (Quantization("awq", 3, kind="awq of 3 bits"), "quantized by awq of 3 bits"),
        (Quantization("bitsandbytes", 8, kind="bitsandbytes"), "quantized by bitsandbytes"),
        (Quantization("modelopt", 8, kind="fp8"), "quantized by fp8"),
        (Quantization("unknown", 16, kind="unknown"), "quantized by unknown"),
        (Quantization("mxfp4", 4, True, kind="mxfp4"), ""),  # gpt-oss
        (Quantization("modelopt_mxfp4", 4, True, kind="modelopt_mxfp4"), "four-bit floats (modelopt_mxfp4)"),
        (Quantization("fp8", 8, True, 8, "fp8"), ""),
        (Quantization("fp8", 8, True, 16, "fp8"), ""),
        (Quantization("compressed-tensors", 8, kind="i"), "eight-bit weights beside sixteen-bit activations (i)"),
        (Quantization("compressed-tensors", 8, activation_bits=8, kind="i"), ""),
        (Quantization("compressed-tensors", 4, activation_bits=8, kind="i"), "beside quantized activations (i)"),
    ],
)
def test_formats_that_do_not_run(quantization: Quantization, word: str) -> None:
    said = not_run(quantization, DUO)
    assert word in said and bool(said) == bool(word)


# ----------------------------------------------------------------------------------------------------- results


def result(chip: str = "310P3", **cells: str) -> ModelResult:
    found = {name: Cell(outcome, "d", date="2026-01-01") for name, outcome in cells.items()}  # type: ignore[arg-type]
    return ModelResult("row", "g", chip, cells=found, architecture="AForCausalLM")


LLAMA = replace(SHAPE, architecture="AForCausalLM")


def test_what_stands_for_a_structure() -> None:
    run = standing(LLAMA, DUO, [result(prefill="pass", ep="refused")])
    assert run == Standing("run", "its structure was run on an emulated 310P3 (`ascend models row`)", ("row",))
    wrong = standing(LLAMA, DUO, [result(prefill="fails")])
    assert wrong == Standing("refused", "its structure gave wrong answers on an emulated 310P3: row", ("row",))
    assert standing(LLAMA, A2, [result(prefill="pass")]).outcome == "not run yet", "another chip says nothing"
    assert standing(LLAMA, find("910_9391"), [result("910B3", prefill="pass")]).outcome == "run", "A3 runs A2's"
    assert standing(LLAMA, find("950DT"), [result("", prefill="pass")]).outcome == "run"
    assert standing(LLAMA, find("950DT"), [result("310P3"), result("910B3")]).outcome == "not run yet"
    assert standing(replace(LLAMA, architecture="B"), DUO, [result()]).detail.startswith("B has not been run on 310P3")
    refused = standing(replace(LLAMA, stored=Quantization("awq", 3, kind="awq of 3 bits")), DUO, [result()])
    assert refused.outcome == "refused" and "awq of 3 bits" in refused.detail
    seeing = replace(LLAMA, architecture="Mistral3ForConditionalGeneration")
    row = replace(result(prefill="pass"), architecture="MistralForCausalLM")
    assert "its language model, without pictures, was run" in standing(seeing, DUO, [row]).detail
    caught = replace(result(prefill="pass"), faults={"scale": Trial(True)})
    assert standing(LLAMA, DUO, [caught]).outcome == "run"
    assert standing(LLAMA, DUO, [replace(caught, faults={"scale": Trial(False)})]).outcome == "refused"


def test_a_later_run_replaces_its_own_cells() -> None:
    faults = {"x": Trial(False), "y": Trial(True, "2026-01-01")}
    first = merge({}, replace(result(a="pass", b="fails"), faults=faults, dtype="float16"))
    later = replace(result(b="pass", c="refused"), faults={"x": Trial(True, "2026-02-02", {"vllm": "1"})})
    (found,) = merge(first, later).values()
    assert {name: cell.outcome for name, cell in found.cells.items()} == {"a": "pass", "b": "pass", "c": "refused"}
    assert found.faults == {"x": Trial(True, "2026-02-02", {"vllm": "1"}), "y": Trial(True, "2026-01-01")}
    assert (found.dtype, found.architecture, found.group) == ("float16", "AForCausalLM", "g")
    assert len(merge(first, result("910B3"))) == 2
    assert settled(first, "row", "310P3") == {"a", "y"}
    assert settled(first, "row", "910B3") == set()


def test_the_days_of_a_row() -> None:
    cells = {name: Cell("pass", "d", date=date) for name, date in (("a", "2026-02-01"), ("b", ""), ("c", "2025-12-31"))}
    assert replace(result(), cells=cells).dates == ("2025-12-31", "2026-02-01")
    assert ModelResult("row", "g", "310P3").dates is None


def test_results_survive_a_file(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    assert model_results.load(file) == {}
    kept = merge(merge({}, result(a="pass")), result("910B3", b="fails"))
    model_results.store(file, kept)
    assert model_results.load(file) == kept
    file.write_text(json.dumps({"schema": "other", "results": []}))
    with pytest.raises(ValueError, match="'other'"):
        model_results.load(file)


# ------------------------------------------------------------------------------------- versions and variables


def test_builds_of_the_row() -> None:
    row = Row("0.33.0", "5", ("3.11",), ("2.13.0", "2.14.0"), ("0.28.0", "0.29.0"))
    assert row.tested_torch == "2.13.0"
    for version, has in (
        ("0.33.0", True),
        ("0.33.0+empty", True),
        ("0.33.1", False),
        ("0.33.0rc1", False),
        ("", False),
    ):
        assert row.has_vllm(version) is has


def test_variables_are_rows_of_their_package_s_table() -> None:
    page = environment.render("en")
    parts = page.split("\n## ")
    assert [part.splitlines()[0] for part in parts[1:]] == ["The plugin", "The `ascend` command", "The emulator"]
    for package, part in zip(("plugin", "command line", "emulator"), parts[1:], strict=True):
        lines = part.splitlines()
        assert lines[1:4] == ["", "| variable | | default | meaning |", "| --- | --- | --- | --- |"]
        names = [line.split("`")[1] for line in lines[4:] if line]
        assert names == [one.name for one in environment.variables() if one.package == package]
    with_default = next(one for one in environment.variables() if one.default)
    access = environment.ACCESSES["zh"][with_default.access]
    row = f"| `{with_default.name}` | {access} | `{with_default.default}` | {with_default.zh} |"
    assert row in environment.render("zh")
    without = next(one for one in environment.variables() if not one.default)
    assert f"| `{without.name}` | {environment.ACCESSES['en'][without.access]} |  | {without.en} |" in page


# ------------------------------------------------------------------------------------------------------ probes


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Version=26.0.RC1\n", "26.0.RC1"),
        ("package_name=x\nversion = 9.1.0 \nversion=2", "9.1.0"),
        ("inner_version=1\n", None),
        ("version=\nversion=3", "3"),
        ("version", None),
        ("", None),
    ],
)
def test_versions_in_files(text: str, version: str | None, tmp_path: Path) -> None:
    (tmp_path / "info").write_text(text)
    assert probes._version(tmp_path / "info") == version
    assert probes._version(tmp_path / "none") is None


def test_where_the_versions_of_a_machine_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "version.info").write_text("Version=8.0\n")
    (tmp_path / "driver").write_text("Version=26\n")
    monkeypatch.setattr(probes, "CANN_HOMES", (str(tmp_path / "none"), str(tmp_path)))
    monkeypatch.setattr(probes, "DRIVER_FILE", tmp_path / "driver")
    monkeypatch.delenv("ASCEND_HOME_PATH", raising=False)
    assert probes.installation("S") == probes.Installation("S", "8.0", "26")
    (tmp_path / "named" / "compiler").mkdir(parents=True)
    (tmp_path / "named" / "compiler" / "version.info").write_text("Version=9.1\n")
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path / "named"))
    assert probes.installation("S").cann == "9.1", "what the environment names comes first"
    (tmp_path / "driver").unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert probes.installation("S").driver is None and probes.installation("S").file is None
    assert probes.Installation("S", None, "26").file is None
    assert probes.Installation("S", "9", "26", emulated=True).file is None
    assert probes.Installation("S", "9", "26").file == Path("/c/ascend/probe-S-9-26.json")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert probes.Installation("S", "9", "26").file == Path.home() / ".cache/ascend/probe-S-9-26.json"


def test_a_result_may_be_named_or_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = probes.Installation(DUO.soc_version, "9", None)
    monkeypatch.setattr(probes, "installation", lambda soc: replace(here, soc=soc))
    monkeypatch.delenv(probes.VARIABLE, raising=False)
    assert probes.as_found(DUO) is DUO
    file = tmp_path / "p.json"
    result: dict[str, Any] = {
        "schema": probes.SCHEMA, "soc": DUO.soc_version, "cann": "9", "driver": "x", "emulated": False,
        "forms": {"gating_rows": 4096},
    }  # fmt: skip
    file.write_text(json.dumps(result))
    monkeypatch.setenv(probes.VARIABLE, str(file))
    found = probes.as_found(DUO)
    assert found.forms.gating_rows == 4096 and replace(found, forms=DUO.forms) == DUO
    monkeypatch.setenv(probes.VARIABLE, "off")
    assert probes.as_found(DUO) is DUO
    monkeypatch.setenv(probes.VARIABLE, str(tmp_path / "none.json"))
    with pytest.raises(probes.ProbeFileError, match=r"none\.json is not a probe's result"):
        probes.as_found(DUO)
    monkeypatch.setenv(probes.VARIABLE, str(file))
    file.write_text(json.dumps(result | {"cann": "8"}))
    with pytest.raises(probes.ProbeFileError, match="is of cann 8, and here it is 9"):
        probes.as_found(DUO)
    file.write_text(json.dumps(result | {"emulated": True}))
    with pytest.raises(probes.ProbeFileError, match="was measured on an emulated chip"):
        probes.as_found(DUO)
    file.write_text(json.dumps(result | {"schema": "ascend.probe/0"}))
    with pytest.raises(probes.ProbeFileError, match="schema 'ascend"):
        probes.as_found(DUO)
    file.write_text(json.dumps(result | {"forms": {"strange": 1}}))
    with pytest.raises(probes.ProbeFileError, match="unknown field strange"):
        probes.as_found(DUO)


LEAVES = st.none() | st.booleans() | st.integers() | st.text()


@given(st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
def test_no_probe_s_file_is_more_than_refused(content: Any) -> None:
    class File:
        def read_text(self, **_: str) -> str:
            return json.dumps(content)

    with pytest.raises(probes.ProbeFileError):
        probes.with_found(DUO, probes.Installation("S", None, None), File())  # type: ignore[arg-type]


def test_shapes_of_published_files_are_read_through() -> None:
    config = {"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
              "intermediate_size": 5, "vocab_size": 11,
              "quantization_config": {"quant_method": "awq", "modules_to_not_convert": ["self_attn"]}}  # fmt: skip
    found = {weights.kind: weights.quantized for weights in read_model_shape(config).weights}
    assert found == {"embedding": False, "attention": False, "mlp": True, "norms": False, "lm_head": False}
