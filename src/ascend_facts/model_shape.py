"""Sizes of a model, from its config.json alone: parameters by kind, cache per token, state per sequence.

Pure arithmetic on a dictionary (see config_fields for the spellings): imports neither torch nor transformers, so that
`ascend plan` answers at once and the plugin can refuse a model before a byte of its weights is read. Where a
checkpoint is at hand its own tensors are counted instead (see checkpoint).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ascend_facts.attention_shape import (
    INDEXER_KEY_BYTES,
    CacheLayers,
    Heads,
    attention_parameters,
    cache_layers,
    heads_of,
    indexer_layers,
    indexer_parameters,
)
from ascend_facts.config_fields import Fields, UnreadableConfig, language_section
from ascend_facts.families import Family, families, family_of
from ascend_facts.feed_forward_shape import FeedForward, feed_forward
from ascend_facts.quantized_format import UNQUANTIZED, Quantization, read_quantization
from ascend_facts.state_shape import Mixers, mixers
from ascend_facts.vision_shape import vision_parameters

if TYPE_CHECKING:
    from ascend_facts.chips import ChipSpec

__all__ = ["BYTES_OF_DTYPE", "ModelShape", "UnreadableConfig", "Weights", "read_model_shape"]

BYTES_OF_DTYPE = {"float32": 4, "float16": 2, "bfloat16": 2, "float8": 1, "int8": 1}
# Their activations exceed float16: vLLM runs them in bfloat16 or float32 (config/model.py, "Numerical instability").
BEYOND_FLOAT16 = frozenset({"gemma2", "gemma3", "gemma3_text", "glm4"})

Kind = Literal["embedding", "attention", "linear attention", "mlp", "experts", "router", "norms", "lm_head", "vision"]


@dataclass(frozen=True, slots=True)
class Weights:
    """One kind of weight, summed over the layers.

    `per_token` counts what one token multiplies with (fewer than `parameters` for experts, none for an embedding
    table, which is looked up). `experts` and `experts_per_token` are 0 but for routed experts.
    """

    kind: Kind
    parameters: int
    per_token: int
    split: bool  # divided over tensor-parallel ranks; a copy on each otherwise
    quantized: bool  # what an int8 or 4-bit checkpoint stores in fewer bits
    experts: int = 0
    experts_per_token: int = 0

    def parameters_read(self, tokens: int) -> float:
        """Parameters that a step of `tokens` tokens reads from memory, if routing is uniform."""
        if self.kind in ("embedding", "vision"):
            return 0.0  # one row a token; the tower runs for pictures only
        if not self.experts:
            return float(self.parameters)
        touched = 1 - (1 - self.experts_per_token / self.experts) ** tokens
        return self.parameters * touched


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the memory and time of a model depend on. Sizes are counts, not bytes, unless named so."""

    architecture: str
    model_type: str
    dtype: str
    quantization: str | None  # method named by the checkpoint: "ascend", "compressed-tensors", "fp8", "awq" ...
    layers: int
    attention_layers: int  # those with a key-value cache
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int  # widest feed-forward layer that one token meets
    vocab_size: int
    max_context: int
    weights: tuple[Weights, ...]
    caches: tuple[CacheLayers, ...]
    stored: Quantization = UNQUANTIZED
    recurrent_layers: int = 0
    window_values: int = 0  # of one recurrent layer and sequence: kept in the model's dtype
    matrix_values: int = 0  # of one recurrent layer and sequence: kept in state_dtype
    state_dtype: str = ""  # empty: as the model
    indexer_bytes_per_token: int = 0
    is_counted: bool = True  # whether published totals hold this family's counts, or the checkpoint's tensors do

    @property
    def parameters(self) -> int:
        return sum(weights.parameters for weights in self.weights)

    @property
    def parameters_per_token(self) -> int:
        return sum(weights.per_token for weights in self.weights)

    def dtype_on(self, chip: ChipSpec) -> str:
        """What vLLM runs this checkpoint in on a chip unless told otherwise."""
        if chip.has_bf16:
            return self.dtype if self.dtype in ("bfloat16", "float16") else chip.preferred_dtype
        return "float32" if self.model_type in BEYOND_FLOAT16 else "float16"

    @property
    def has_experts(self) -> bool:
        return any(weights.experts for weights in self.weights)

    @property
    def is_latent(self) -> bool:
        """Whether its cache is one latent vector a token (MLA)."""
        return any(layers.is_latent for layers in self.caches)

    @property
    def has_tied_head(self) -> bool:
        return any(weights.kind == "lm_head" and not weights.parameters for weights in self.weights)

    @property
    def state_values_per_sequence(self) -> int:
        return self.recurrent_layers * (self.window_values + self.matrix_values)

    def state_bytes_per_sequence(self, cache_dtype: str) -> int:
        """Bytes of one sequence's recurrent states, before they are divided over ranks."""
        own = BYTES_OF_DTYPE.get(self.state_dtype, BYTES_OF_DTYPE[cache_dtype])
        return self.recurrent_layers * (self.window_values * BYTES_OF_DTYPE[cache_dtype] + self.matrix_values * own)

    def cache_values_per_token(self, tensor_parallel_size: int) -> int:
        """Values that one more token adds to one rank's cache, all layers that look back over everything."""
        return sum(layers.values_per_token(tensor_parallel_size) for layers in self.caches if not layers.window)

    def attended_values(self, tensor_parallel_size: int, context_tokens: int) -> int:
        """Values that attention reads of one sequence's cache on one rank: of windowed layers only the window."""
        return sum(
            layers.values_per_token(tensor_parallel_size) * min(context_tokens, layers.window or context_tokens)
            for layers in self.caches
        )

    def splits_into(self, tensor_parallel_size: int) -> bool:
        """Whether vLLM can divide the heads: queries evenly; key-value heads evenly, or each copied to some ranks."""
        even = self.kv_heads % tensor_parallel_size == 0 or tensor_parallel_size % self.kv_heads == 0
        return self.heads % tensor_parallel_size == 0 and (even or self.is_latent)


def read_model_shape(config: Mapping[str, Any]) -> ModelShape:
    """The shape of a Hugging Face config.json. Raises UnreadableConfig, naming the field that is wrong or missing."""
    section = language_section(config)
    model_type = Fields(section).text("model_type", "unknown")
    family = family_of(model_type)
    text = Fields(section, family.defaults)
    _refuse_encoder_decoders(text)
    layers = _layers(text)
    heads, mixed = heads_of(text), mixers(text, layers)
    forward = feed_forward(text, family, mixed.feed_forward)
    hidden_size, max_context = text.size("hidden_size"), text.optional_size("max_position_embeddings") or 2048
    caches = () if family.encoder else cache_layers(text, mixed.attention, heads, max_context)
    stored = read_quantization(config, section)
    weights = [
        replace(entry, quantized=entry.quantized and entry.kind not in stored.plain_kinds)
        for entry in _weights(text, family, layers, heads, mixed, forward)
    ]
    if vision := vision_parameters(config, hidden_size):
        weights.append(Weights("vision", vision, 0, split=True, quantized=False))
    return ModelShape(
        architecture=_architecture(config),
        model_type=model_type,
        dtype=text.text("dtype", "float16").removeprefix("torch."),
        quantization=stored.method,
        layers=layers,
        attention_layers=mixed.attention,
        hidden_size=hidden_size,
        heads=heads.queries,
        kv_heads=heads.key_values,
        head_dim=heads.width,
        intermediate_size=forward.widest,
        vocab_size=text.size("vocab_size"),
        max_context=max_context,
        weights=tuple(weights),
        caches=caches,
        stored=stored,
        recurrent_layers=mixed.recurrent,
        window_values=mixed.window_values,
        matrix_values=mixed.matrix_values,
        state_dtype=text.text("state_dtype"),
        indexer_bytes_per_token=indexer_layers(text, mixed.attention) * INDEXER_KEY_BYTES,
        is_counted=model_type in families(),
    )


def _architecture(config: Mapping[str, Any]) -> str:
    names = Fields(config).items("architectures")
    return str(names[0])[:200] if names else "unknown"


def _refuse_encoder_decoders(text: Fields) -> None:
    if text.flag("is_encoder_decoder") or text.optional_size("encoder_layers") or text.optional_size("d_kv"):
        raise UnreadableConfig(
            "this is a model of an encoder and a decoder, whose cross-attention cache is not counted here: "
            "`ascend serve` starts it without a plan"
        )


def _layers(text: Fields) -> int:
    if not text.raw("num_hidden_layers") and (blocks := text.items("layers_block_type")):
        return len(blocks)  # Nemotron 3 names the layers one by one and not their number
    return text.size("num_hidden_layers")


def _weights(
    text: Fields, family: Family, layers: int, heads: Heads, mixed: Mixers, forward: FeedForward
) -> list[Weights]:
    hidden_size = text.size("hidden_size")
    vocabulary = text.size("vocab_size") * hidden_size
    tied = text.flag("tie_word_embeddings", default=family.tied)
    kinds = [Weights("embedding", vocabulary + _positions(text, family), 0, split=True, quantized=False)]
    attention = _attention(text, family, heads, mixed.attention)
    kinds.append(Weights("attention", attention, attention, split=True, quantized=True))
    if mixed.recurrent:
        linear = mixed.recurrent * mixed.parameters
        kinds.append(Weights("linear attention", linear, linear, split=True, quantized=True))
    kinds.append(Weights("mlp", forward.always, forward.always, split=True, quantized=True))
    if forward.experts:
        share = forward.routed * forward.experts_per_token // forward.experts
        kinds.append(Weights("experts", forward.routed, share, True, True, forward.experts, forward.experts_per_token))
        kinds.append(Weights("router", forward.router, forward.router, split=False, quantized=False))
    norms = _norms(text, family, layers)
    kinds.append(Weights("norms", norms, norms, split=False, quantized=False))
    if family.encoder:
        return kinds
    # A tied head reads the embedding table as a matrix: no parameters of its own, the same traffic.
    bias = text.size("vocab_size") if family.head_bias else 0
    kinds.append(Weights("lm_head", bias if tied else vocabulary + bias, vocabulary, split=True, quantized=False))
    return kinds


def _attention(text: Fields, family: Family, heads: Heads, layers: int) -> int:
    """Attention of all layers; Gemma 4's layers that see everything have heads of their own, keys that are values."""
    wide = text.optional_size("global_head_dim")
    kinds = text.items("layer_types")
    plain = layers * attention_parameters(text, family, heads)
    if not wide or not kinds:
        return plain + indexer_parameters(text, layers)
    full: int = sum(kind == "full_attention" for kind in kinds)
    kv_heads = text.optional_size("num_global_key_value_heads") or heads.key_values
    matrices = 1 if text.flag("attention_k_eq_v") else 2
    projections = text.size("hidden_size") * wide * (2 * heads.queries + matrices * kv_heads) + 2 * wide
    return plain // layers * (layers - full) + full * projections


def _positions(text: Fields, family: Family) -> int:
    """Learned positions, and the types of tokens of encoders."""
    if family.positions is None:
        return 0
    rows = text.size("max_position_embeddings") + family.positions
    types = text.optional_size("type_vocab_size") if family.encoder else 0
    return (rows + types) * text.size("hidden_size")


def _norms(text: Fields, family: Family, layers: int) -> int:
    hidden_size = text.size("hidden_size")
    layer = family.norms
    if text.text("model_type") == "falcon" and text.flag("new_decoder_architecture"):
        layer = 2  # one before each of the parallel branches
    norms = (layers * layer + 1 + family.extra_norms) * family.norm_values * hidden_size
    return norms + (hidden_size**2 + hidden_size if family.encoder else 0)  # an encoder's pooler
