"""Model folders with wrong things in them: no command ends in a traceback, whatever a file of theirs holds.

Each case is a whole model's folder with one thing wrong, from lists that know nothing of how the reader works: each
field of a configuration and of a quantization with every kind of value, every file with every kind of content, and
things that are no files. A command answers 0, or 1 with its answer, or 2 with one sentence.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ascend_cli.registry.cards import CARD_FIELDS, cards

from .conftest import Ascend

MODELS = ("qwen3-8b", "qwen3-30b-a3b", "qwen3.5-9b", "deepseek-v3", "llama-3.1-8b")
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 3.5, float("nan"), float("inf"), 1e30, 10**30, "", "x", "7", [], [1], ["a"], [None],
    [[1]], [1, 2, 3], {}, {"a": 1}, [{}],
]  # fmt: skip
MORE_FIELDS = (
    "text_config", "llm_config", "quantization_config", "vision_config", "audio_config", "layer_types", "rope_scaling",
    "sliding_window", "dtype", "torch_dtype", "auto_map", "hybrid_override_pattern", "moe_layer_freq", "model_type",
    "interleave_moe_layer_step", "mlp_only_layers", "first_k_dense_replace", "index_topk", "mamba_ssm_dtype",
)  # fmt: skip
METHODS = ("awq", "gptq", "fp8", "compressed-tensors", "ascend", "modelopt", "bitsandbytes", "mxfp4", "x", None, 3, [])
QUANTIZATION_FIELDS = (
    "bits", "w_bit", "group_size", "config_groups", "format", "ignore", "modules_to_not_convert", "quant_algo",
    "model_quant_type", "load_in_8bit", "kv_cache_scheme",
)  # fmt: skip
CONTENTS = [
    b"", b"{", b"null", b"[]", b'"x"', b"3", b"{}", b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}", b"\x00" * 50, b"\xff" * 9,
    b"[" * 100_000, b'{"a":' * 50_000, b'{"weight_map": 3}', b'{"weight_map": {"a": 3}}',
    b'{"weight_map": {"a": "../b.safetensors"}}', b'{"weight_map": {"a": "x-1-of-100000000.safetensors"}}',
    b'{"weight_map": {"a": "a\x00.safetensors"}}', b'{"chat_template": 3}', b'{"chat_template": ["a"]}',
    b'{"chat_template": [{"name": 3}]}', b'{"chat_template": {"default": null}}', b'{"quantization": 3}',
    b'{"quantization": {"quant_algo": 3}}', b'{"model_quant_type": []}', b'{"a": ["W8A8"]}', b'{"dim": "x"}',
    b'{"temperature": "x", "top_p": []}', b'{"architectures": {"a": 1}}', b'{"architectures": [3]}', b"1" * 5_000,
    b'{"hidden_size": 1e999}', b'{"vocab_size": ' + b"9" * 4_400 + b"}",
]  # fmt: skip
FILES = (
    "config.json", "params.json", "model.safetensors.index.json", "model.safetensors", "generation_config.json",
    "tokenizer_config.json", "chat_template.json", "chat_template.jinja", "tokenizer.json", "preprocessor_config.json",
    "quant_model_description.json", "hf_quant_config.json", "adapter_config.json", "modules.json",
)  # fmt: skip
COMMANDS = (
    ["plan"],
    ["deploy", "--target", "compose"],
    ["deploy", "--target", "systemd"],
    ["deploy", "--target", "k8s"],
)


def whole(name: str) -> dict[str, Any]:
    return {key: value for key, value in cards()[name].items() if key not in CARD_FIELDS}


def lay_out(folder: Path, config: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"")


@pytest.fixture
def judge(ascend: Ascend, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, str], None]:
    """Every command on a folder, in turn: one a case, all of them over the cases."""
    monkeypatch.setattr("ascend_cli.serving.decide.vllm_command", lambda: "/venv/bin/vllm")
    monkeypatch.setenv("ASCEND_EMULATOR", "1")
    turn = itertools.cycle(
        [
            *([name, "{folder}", "--chip", "910B3", *more] for name, *more in COMMANDS),
            ["serve", "{folder}", "--dry-run"],
        ]
    )

    def check(folder: Path, case: str) -> None:
        words = [word.format(folder=folder) for word in next(turn)]
        answer = ascend(*words)
        told = f"{case}: {' '.join(words[:1] + words[2:])}: {answer.code} {answer.err[:400]}"
        assert answer.code in (0, 1, 2) and "Traceback" not in answer.err, told
        lines = answer.err.strip().splitlines()
        if answer.code == 2:
            assert len(lines) == 1 and lines[0].startswith("ascend: ") and len(lines[0]) < 700, told

    return check


@pytest.mark.parametrize("name", MODELS)
def test_every_field_with_every_kind_of_value(judge: Callable[[Path, str], None], name: str, tmp_path: Path) -> None:
    config, folder = whole(name), tmp_path / "model"
    fields = sorted({*config, *MORE_FIELDS})
    for number, (field, value) in enumerate(itertools.product(fields, VALUES)):
        if number % (3 * len(MODELS)) == 3 * MODELS.index(name):  # 3 and 23 values share no factor: every field is met
            lay_out(folder, {**config, field: value})
            judge(folder, f"{field} = {value!r}")


def test_every_quantization_with_every_kind_of_value(judge: Callable[[Path, str], None], tmp_path: Path) -> None:
    config, folder = whole("qwen3-8b"), tmp_path / "model"
    for number, (method, field, value) in enumerate(itertools.product(METHODS, QUANTIZATION_FIELDS, VALUES)):
        if number % 29 == 0:
            section = {"quant_method": method, field: value}
            if field == "config_groups" and not isinstance(value, dict):
                section[field] = {"group_0": {"weights": value, "input_activations": value}}
            lay_out(folder, {**config, "quantization_config": section})
            judge(folder, f"{section}")


@pytest.mark.parametrize("file", FILES)
def test_every_file_with_every_kind_of_content(judge: Callable[[Path, str], None], file: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for content in CONTENTS[FILES.index(file) % 2 :: 2] if file not in FILES[:4] else CONTENTS:
        lay_out(folder, whole("qwen3-8b"))
        (folder / file).write_bytes(content)
        judge(folder, f"{file}: {content[:40]!r}")


def not_files(folder: Path, file: str) -> Iterator[str]:
    """Things that stand where a file should."""
    path = folder / file
    for kind in ("folder", "dangling", "loop", "fifo", "zero", "unreadable"):
        path.unlink(missing_ok=True)
        if kind == "folder":
            path.mkdir()
        elif kind == "dangling":
            path.symlink_to("nowhere")
        elif kind == "loop":
            path.symlink_to(path.name)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "zero":
            path.symlink_to("/dev/zero")
        else:
            path.write_text("{}")
            path.chmod(0)
        yield kind
        if path.is_dir() and not path.is_symlink():
            path.rmdir()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("file", FILES)
def test_what_is_no_file(judge: Callable[[Path, str], None], file: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    lay_out(folder, whole("qwen3-8b"))
    for kind in not_files(folder, file):
        judge(folder, f"{file} is {kind}")


@pytest.mark.parametrize("name", ["plan", "models"])
def test_names_that_are_none(ascend: Ascend, name: str) -> None:
    for text in (
        "a b/c",
        "..",
        "../x",
        "\x00",
        "a" * 5_000,
        "-",
        "{{x}}",
        "$HOME",
        "模型/名",
        "a/b/c",
        "/",
        "~nobody/x",
        "'",
    ):
        answer = ascend(name, "--", text)
        assert answer.code in (0, 1, 2) and "Traceback" not in answer.err, (name, text[:20])
