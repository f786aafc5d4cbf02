"""R8: a broken checkpoint is refused by file and tensor before anything is started, `--dry-run` included.

Each case breaks a whole checkpoint in one place; the whole one is accepted, so every refusal is of that place.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import load_file, save_file

from ascend_cli.errors import UsageError
from ascend_cli.serving.decide import known_model
from conformance.tiny import TinyShape, build_tiny_qwen3

from .results import record
from .server import ASCEND

WEIGHTS = "model.safetensors"
SHAPE = TinyShape(hidden_size=64, intermediate_size=128, num_attention_heads=2, num_key_value_heads=1, head_dim=32)
Break = Callable[[Path], None]


@pytest.fixture(scope="module")
def smaller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_qwen3(tmp_path_factory.mktemp("smaller") / "model", SHAPE)


@pytest.fixture
def folder(smaller: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(smaller, tmp_path / "model"))


def change(alter: Callable[[dict[str, numpy.ndarray]], object]) -> Break:
    """A change of the tensors, written back."""

    def apply(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        alter(weights)
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})

    return apply


def put(name: str, value: Callable[[numpy.ndarray], numpy.ndarray]) -> Break:
    return change(lambda weights: weights.update({name: value(weights[name])}))


def write(name: str, content: str | bytes) -> Break:
    def apply(folder: Path) -> None:
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)

    return apply


def configure(**values: object) -> Break:
    def apply(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return apply


def edit(name: str, alter: Callable[[bytearray], object]) -> Break:
    def apply(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        altered = alter(data)
        (folder / name).write_bytes(altered if isinstance(altered, bytes | bytearray) else data)

    return apply


def replace_by_folder(name: str) -> Break:
    def apply(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return apply


def loop(name: str) -> Break:
    def apply(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(name)

    return apply


def shard(folder: Path, missing: str = "") -> None:
    weights = load_file(folder / WEIGHTS)
    names = sorted(weights)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: weights[name] for name in part if name != missing}, folder / file)
    places = {name: file for file, part in halves.items() for name in part}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / WEIGHTS).unlink()


def without_a_shard(folder: Path) -> None:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def pickle_only(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")


def with_one(value: float) -> Callable[[numpy.ndarray], numpy.ndarray]:
    def alter(array: numpy.ndarray) -> numpy.ndarray:
        array = array.copy()
        array.flat[array.size // 2] = value
        return array

    return alter


def template(text: str) -> Break:
    def apply(folder: Path) -> None:
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": text}))

    return apply


def flipped_length(data: bytearray) -> None:
    data[3] ^= 0x10


def flipped_header(data: bytearray) -> None:
    data[data.index(b'"F16"') + 1] ^= 0x04


def flipped_offset(data: bytearray) -> None:
    place = data.index(b'"data_offsets":[') + len(b'"data_offsets":[')
    data[place] ^= 0x01


def flipped_exponent(data: bytearray) -> None:
    data[-1] |= 0x7C


Q, K, GATE = (f"model.layers.2.{name}.weight" for name in ("self_attn.q_proj", "self_attn.k_proj", "mlp.gate_proj"))
NORM = "model.layers.1.input_layernorm.weight"
DESCRIPTION = "quant_model_description.json"
LOOP, END = "{% for i in range(90000) %}", "{% endfor %}"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def entry(name: str, **values: object) -> Break:
    """A change of what the header says of a tensor."""
    return header(lambda document: document[name].update(values))


def header(alter: Callable[[dict[str, dict[str, object]]], object]) -> Break:
    def apply(data: bytearray) -> bytes:
        (length,) = struct.unpack("<Q", data[:8])
        document = json.loads(data[8 : 8 + length])
        altered = alter(document)
        text = altered if isinstance(altered, bytes) else json.dumps(document).encode()
        return struct.pack("<Q", len(text)) + text + bytes(data[8 + length :])

    return edit(WEIGHTS, apply)


def twice(document: dict[str, dict[str, object]]) -> bytes:
    return json.dumps(document).encode()[:-1] + b", " + json.dumps({Q: document[Q]}).encode()[1:]


def dangling(name: str) -> Break:
    def apply(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to("nowhere")

    return apply


def huge(name: str) -> Break:
    def apply(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            file.truncate(20 << 30)

    return apply


GENERATION, TOKENIZER = "generation_config.json", "tokenizer_config.json"
CASES: dict[str, tuple[Break, str]] = {
    "cut in half": (edit(WEIGHTS, lambda data: data[: len(data) // 2]), WEIGHTS),
    "cut by a byte": (edit(WEIGHTS, lambda data: data[:-1]), WEIGHTS),
    "cut in its header": (edit(WEIGHTS, lambda data: data[:100]), WEIGHTS),
    "empty": (write(WEIGHTS, b""), WEIGHTS),
    "four bytes": (write(WEIGHTS, b"\0\0\0\0"), WEIGHTS),
    "a byte too many": (edit(WEIGHTS, lambda data: data + b"\0"), WEIGHTS),
    "bit flipped in the length": (edit(WEIGHTS, flipped_length), WEIGHTS),
    "bit flipped in a dtype": (edit(WEIGHTS, flipped_header), WEIGHTS),
    "bit flipped in an offset": (edit(WEIGHTS, flipped_offset), WEIGHTS),
    "bits flipped in an exponent": (edit(WEIGHTS, flipped_exponent), "NaN or infinity"),
    "a header that is a list": (write(WEIGHTS, struct.pack("<Q", 2) + b"[]"), WEIGHTS),
    "a header nested deep": (write(WEIGHTS, struct.pack("<Q", 20000) + b"[" * 20000), WEIGHTS),
    "a pointer of Git LFS": (write(WEIGHTS, LFS), "git lfs pull"),
    "config: a pointer of Git LFS": (write("config.json", LFS), "config.json"),
    "tokenizer: a pointer of Git LFS": (write("tokenizer.json", LFS), "git lfs pull"),
    "pickles only": (pickle_only, "pickles"),
    "weights are a folder": (replace_by_folder(WEIGHTS), WEIGHTS),
    "config is a folder": (replace_by_folder("config.json"), "config.json"),
    "tokenizer is a folder": (replace_by_folder("tokenizer.json"), "tokenizer.json"),
    "weights link to themselves": (loop(WEIGHTS), WEIGHTS),
    "tokenizer links to itself": (loop("tokenizer.json"), "tokenizer.json"),
    "config links to itself": (loop("config.json"), "config.json"),
    "config nested deep": (write("config.json", "[" * 100_000), "config.json"),
    "config is no object": (write("config.json", "[1]"), "config.json"),
    "config is binary": (write("config.json", bytes(range(256))), "config.json"),
    "a shard is missing": (without_a_shard, "model-00002-of-00002.safetensors"),
    "a tensor of the index is missing": (lambda folder: shard(folder, missing=Q), Q),
    "the index is garbage": (write(f"{WEIGHTS}.index.json", "{"), "index.json"),
    "the index maps to numbers": (write(f"{WEIGHTS}.index.json", '{"weight_map": {"a": 1}}'), "index.json cannot"),
    "a query is missing": (change(lambda weights: weights.pop(Q)), Q),
    "a key is missing": (change(lambda weights: weights.pop(K)), K),
    "a gate is missing": (change(lambda weights: weights.pop(GATE)), GATE),
    "a norm is missing": (change(lambda weights: weights.pop(NORM)), NORM),
    "the embedding is missing": (change(lambda weights: weights.pop("model.embed_tokens.weight")), "embed_tokens"),
    "a layer is missing": (
        change(lambda weights: [weights.pop(name) for name in list(weights) if ".layers.3." in name]),
        "layer 3",
    ),
    "a wrong shape": (put(Q, lambda array: array[:-32].copy()), Q),
    "a transposed matrix": (put(GATE, lambda array: array.T.copy()), GATE),
    "other head counts": (configure(num_key_value_heads=2), "k_proj"),
    "another vocabulary": (configure(vocab_size=1000), "embed_tokens"),
    "another width": (configure(hidden_size=512), "config.json makes it"),
    "NaN": (put(Q, with_one(float("nan"))), Q),
    "infinity": (put(NORM, with_one(float("inf"))), NORM),
    "minus infinity": (put("model.embed_tokens.weight", with_one(float("-inf"))), "embed_tokens"),
    "integers": (put(GATE, lambda array: array.astype("int8")), "I8"),
    "long integers": (put(Q, lambda array: array.astype("int64")), "I64"),
    "no layers": (configure(num_hidden_layers=0), "num_hidden_layers"),
    "layers as text": (configure(num_hidden_layers="4"), "num_hidden_layers"),
    "layers that are not in the files": (configure(num_hidden_layers=5), "layer 4 of 5"),
    "layers that config.json has not": (configure(num_hidden_layers=3), "tensors of layer 3"),
    "a negative width": (configure(hidden_size=-64), "hidden_size"),
    "half a head": (configure(num_attention_heads=1.5), "num_attention_heads"),
    "no vocabulary": (configure(vocab_size=None), "vocab_size"),
    "a context without end": (configure(max_position_embeddings=2**40), "max_position_embeddings"),
    "an unknown dtype": (configure(dtype="float17"), "dtype"),
    "an architecture that is a number": (configure(architectures=[1]), "architectures"),
    "an architecture that is text": (configure(architectures="Qwen3ForCausalLM"), "architectures"),
    "a dtype that is a list": (entry(Q, dtype=["F16"]), Q),
    "a tensor twice in a header": (header(twice), WEIGHTS),
    "metadata of numbers": (header(lambda document: document.update(__metadata__={"a": 1})), "metadata"),  # type: ignore[dict-item]
    "generation: a list": (write(GENERATION, "[1]"), GENERATION),
    "generation: a temperature that is text": (write(GENERATION, '{"temperature": "x"}'), "temperature"),
    "generation: a top_p of 5": (write(GENERATION, '{"top_p": 5}'), "top_p"),
    "generation: NaN": (write(GENERATION, '{"temperature": NaN}'), "temperature"),
    "generation: an end that is negative": (write(GENERATION, '{"eos_token_id": [-1]}'), "eos_token_id"),
    "generation: 20 GB": (huge(GENERATION), GENERATION),
    "tokenizer's configuration: 20 GB": (huge(TOKENIZER), TOKENIZER),
    "tokenizer's configuration: null": (write(TOKENIZER, "null"), TOKENIZER),
    "tokenizer: a list": (write("tokenizer.json", "[1]"), "tokenizer.json"),
    "tokenizer: a link to nowhere": (dangling("tokenizer.json"), "tokenizer.json points to"),
    "weights: a link to nowhere": (dangling(WEIGHTS), WEIGHTS),
    "special tokens of garbage": (write("special_tokens_map.json", "{"), "special_tokens_map.json"),
    "added tokens are a folder": (replace_by_folder("added_tokens.json"), "added_tokens.json"),
    "a processor of garbage": (write("preprocessor_config.json", b"\0"), "preprocessor_config.json"),
    "a template that is a number": (
        write(TOKENIZER, json.dumps({"chat_template": 5})), "chat_template is no text"),
    "a template that is none": (template("{% if"), "is no template"),
    "a template that is a folder": (replace_by_folder("chat_template.jinja"), "chat_template.jinja"),
    "quantization is text": (configure(quantization_config="garbage"), "quantization_config"),
    "quantization is a list": (configure(quantization_config=[1, 2]), "quantization_config"),
    "its method is a number": (configure(quantization_config={"quant_method": 7}), "quantization_config"),
    "a description of numbers": (write(DESCRIPTION, json.dumps({Q: 8})), DESCRIPTION),
    "a description of unknown kinds": (write(DESCRIPTION, json.dumps({Q: "W3A3"})), DESCRIPTION),
    "a description that is a list": (write(DESCRIPTION, "[]"), DESCRIPTION),
    "a description of garbage": (write(DESCRIPTION, "\x00\x01"), DESCRIPTION),
    "a template that loops": (template(LOOP + LOOP + 2 * END), "does not end"),
    "a template that grows": (template(LOOP + "x" * 100 + END), "KiB of a few words"),
    "a template that takes memory": (template("{% set x = 'x' * 4000000000 %}{{ x | length }}"), "chat_template"),
}  # fmt: skip


@pytest.mark.breaks("checkpoints._document: refuse what has an index")
def test_a_whole_checkpoint_is_accepted(folder: Path, tmp_path: Path) -> None:
    known_model(str(folder))
    shard(folder)
    known_model(str(folder))


@pytest.mark.breaks("decide._check_folder: leave check_checkpoint out")
@pytest.mark.parametrize("name", CASES)
def test_a_broken_one_is_refused_by_name(folder: Path, name: str) -> None:
    break_it, says = CASES[name]
    break_it(folder)
    with pytest.raises(UsageError) as refusal:
        known_model(str(folder))
    text = str(refusal.value)
    assert says in text
    assert "\n" not in text and len(text) < 600
    record("R8", "broken checkpoints refused", 1)


@pytest.mark.breaks("safetensors_file: let OSError pass")
def test_what_may_not_be_read(folder: Path) -> None:
    (folder / WEIGHTS).chmod(0)
    command = [ASCEND, "serve", str(folder), "--dry-run"]
    if os.getuid() == 0:  # who reads everything, without these two capabilities does not
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 2 and "Traceback" not in run.stderr
    assert f"{WEIGHTS} cannot be read" in run.stderr.replace("\n", " ")


@pytest.mark.breaks("decide.known_model: leave _check_folder out")
@pytest.mark.parametrize("name", ["cut by a byte", "NaN", "a template that loops"])
@pytest.mark.parametrize("flag", ["--dry-run", "--json", ""])
def test_the_command_refuses_it_in_one_line(folder: Path, name: str, flag: str) -> None:
    CASES[name][0](folder)
    flags = [flag] if flag else []
    run = subprocess.run(
        [ASCEND, "serve", str(folder), *flags], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 2
    lines = [line for line in run.stderr.splitlines() if "emulated on this CPU" not in line]
    assert len([line for line in lines if line.startswith(("error", "ascend"))]) <= 1
    assert "Traceback" not in run.stderr
    assert CASES[name][1] in run.stderr.replace("\n", "")


@pytest.mark.breaks("phases: only the device's errors are told")
@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"hidden_act": "zzz"}, "The engine failed while weights were loaded"),
        ({"architectures": ["Nope"]}, "The server could not start: Model architectures ['Nope']"),
    ],
)
def test_what_only_vllm_finds_is_told_in_the_last_line(folder: Path, values: dict[str, object], says: str) -> None:
    configure(**values)(folder)
    run = subprocess.run([ASCEND, "serve", str(folder)], capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert says in last and len(last) < 700
    record("R8", "checkpoints that vLLM refuses told in the last line", 1)
