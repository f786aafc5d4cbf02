"""Sizes of a model, from its config.json alone: parameters by kind, cache per token, state per sequence.

Pure arithmetic on a dictionary (Hugging Face field names): imports neither torch nor transformers, so that `ascend
plan` answers at once and the plugin can refuse a model before a byte of its weights is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ascend_facts.chips import ChipSpec

BYTES_OF_DTYPE = {"float32": 4, "float16": 2, "bfloat16": 2, "float8": 1, "int8": 1}
NORMS_A_LAYER = 2
# Their activations exceed float16: vLLM runs them in bfloat16 or float32 (config/model.py, "Numerical instability").
BEYOND_FLOAT16 = frozenset({"gemma2", "gemma3", "gemma3_text", "glm4"})


class UnreadableConfig(ValueError):
    """config.json lacks a size that the arithmetic needs; the message names the field."""


@dataclass(frozen=True, slots=True)
class Weights:
    """One kind of weight, summed over the layers.

    `per_token` counts what one token multiplies with (fewer than `parameters` for experts, none for an embedding
    table, which is looked up). `experts` and `experts_per_token` are 0 but for routed experts.
    """

    kind: Literal["embedding", "attention", "linear attention", "mlp", "experts", "router", "norms", "lm_head"]
    parameters: int
    per_token: int
    split: bool  # divided over tensor-parallel ranks; a copy on each otherwise
    quantized: bool  # what an int8 or 4-bit checkpoint stores in fewer bits
    experts: int = 0
    experts_per_token: int = 0

    def parameters_read(self, tokens: int) -> float:
        """Parameters that a step of `tokens` tokens reads from memory, if routing is uniform."""
        if self.kind == "embedding":
            return 0.0  # one row a token
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
    mla_cache_width: int = 0  # width of the latent cache (DeepSeek's MLA); 0 for ordinary attention
    state_values_per_sequence: int = 0  # recurrent state of the linear-attention layers

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

    def cache_values_per_token(self, tensor_parallel_size: int) -> int:
        """Values that one token adds to one rank's cache, all layers; MLA's latent is not divided."""
        if self.mla_cache_width:
            return self.attention_layers * self.mla_cache_width
        heads = max(1, self.kv_heads // tensor_parallel_size)
        return 2 * self.attention_layers * heads * self.head_dim

    def splits_into(self, tensor_parallel_size: int) -> bool:
        """Whether vLLM can divide the heads: queries evenly; key-value heads evenly, or each copied to some ranks."""
        even = self.kv_heads % tensor_parallel_size == 0 or tensor_parallel_size % self.kv_heads == 0
        return self.heads % tensor_parallel_size == 0 and (even or bool(self.mla_cache_width))


def read_model_shape(config: Mapping[str, Any]) -> ModelShape:
    """The shape of a Hugging Face config.json. Raises UnreadableConfig, naming the field that is missing."""
    text = _Fields({**config, **config.get("text_config", {})})
    layers = text.size("num_hidden_layers")
    heads = text.size("num_attention_heads")
    hidden_size = text.size("hidden_size")
    linear_layers = _linear_attention_layers(text, layers)
    architectures = config.get("architectures") or ["unknown"]
    quantization = config.get("quantization_config") or text.get("quantization_config") or {}
    return ModelShape(
        architecture=str(architectures[0]),
        model_type=str(text.get("model_type") or "unknown"),
        dtype=str(text.get("dtype") or text.get("torch_dtype") or "float16"),
        quantization=quantization.get("quant_method"),
        layers=layers,
        attention_layers=layers - linear_layers,
        hidden_size=hidden_size,
        heads=heads,
        kv_heads=text.get("num_key_value_heads") or heads,
        head_dim=text.get("head_dim") or hidden_size // heads,
        intermediate_size=text.get("intermediate_size") or text.size("moe_intermediate_size"),
        vocab_size=text.size("vocab_size"),
        max_context=text.get("max_position_embeddings") or 2048,
        weights=tuple(_weights(text, layers, linear_layers)),
        mla_cache_width=_mla_cache_width(text),
        state_values_per_sequence=linear_layers * _state_values(text) if linear_layers else 0,
    )


class _Fields:
    """config.json's fields, of which a missing one is an error that names it."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields = fields

    def get(self, name: str) -> Any:
        return self.fields.get(name)

    def size(self, name: str) -> int:
        value = self.fields.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise UnreadableConfig(f"config.json has no usable {name!r} ({value!r}): a positive whole number is needed")
        return value


def _weights(text: _Fields, layers: int, linear_layers: int) -> list[Weights]:
    hidden_size = text.size("hidden_size")
    vocabulary = text.size("vocab_size") * hidden_size
    tied = bool(text.get("tie_word_embeddings"))
    kinds = [Weights("embedding", vocabulary, 0, split=True, quantized=False)]
    attention = (layers - linear_layers) * _attention_parameters(text)
    kinds.append(Weights("attention", attention, attention, split=True, quantized=True))
    if linear_layers:
        linear = linear_layers * _linear_attention_parameters(text)
        kinds.append(Weights("linear attention", linear, linear, split=True, quantized=True))
    kinds.extend(_feed_forward(text, layers))
    norms = (layers * NORMS_A_LAYER + 1) * hidden_size
    kinds.append(Weights("norms", norms, norms, split=False, quantized=False))
    # A tied head reads the embedding table as a matrix: no memory of its own, the same traffic. Chips whose weights
    # are FRACTAL_NZ keep a copy for the product: models with tied heads are small, and the profile run counts it.
    kinds.append(Weights("lm_head", 0 if tied else vocabulary, vocabulary, split=True, quantized=False))
    return kinds


def _attention_parameters(text: _Fields) -> int:
    """One layer's projections and, where the model has them, biases and norms of queries and keys."""
    hidden_size, heads = text.size("hidden_size"), text.size("num_attention_heads")
    if text.get("kv_lora_rank"):
        return _mla_parameters(text, hidden_size, heads)
    head_dim = text.get("head_dim") or hidden_size // heads
    kv_heads = text.get("num_key_value_heads") or heads
    query_width, kv_width = heads * head_dim, kv_heads * head_dim
    gate_width = query_width if text.get("attn_output_gate") else 0  # Qwen3.5: a gate as wide as the queries
    projections = hidden_size * (query_width + gate_width + 2 * kv_width) + query_width * hidden_size
    has_bias = text.get("attention_bias") or text.get("model_type") == "qwen2"
    bias = query_width + 2 * kv_width if has_bias else 0
    has_qk_norm = str(text.get("model_type")).startswith("qwen3")
    return projections + bias + (2 * head_dim if has_qk_norm else 0)


def _mla_parameters(text: _Fields, hidden_size: int, heads: int) -> int:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1)."""
    nope, rope = text.size("qk_nope_head_dim"), text.size("qk_rope_head_dim")
    value, latent = text.size("v_head_dim"), text.size("kv_lora_rank")
    query_rank = text.get("q_lora_rank")
    query_width = heads * (nope + rope)
    query = (
        hidden_size * query_rank + query_rank * query_width + query_rank if query_rank else hidden_size * query_width
    )
    key_value = hidden_size * (latent + rope) + latent * heads * (nope + value) + latent
    return query + key_value + heads * value * hidden_size


def _mla_cache_width(text: _Fields) -> int:
    return text.size("kv_lora_rank") + text.size("qk_rope_head_dim") if text.get("kv_lora_rank") else 0


def _feed_forward(text: _Fields, layers: int) -> list[Weights]:
    """Dense layers, or routed and shared experts with the dense layers before them."""
    hidden_size = text.size("hidden_size")
    experts = text.get("num_experts") or text.get("n_routed_experts") or text.get("num_local_experts") or 0
    if not experts:
        dense = layers * 3 * hidden_size * text.size("intermediate_size")
        return [Weights("mlp", dense, dense, split=True, quantized=True)]
    dense_layers = text.get("first_k_dense_replace") or 0
    dense_layers += len(text.get("mlp_only_layers") or [])
    expert_layers = layers - dense_layers
    width = text.get("moe_intermediate_size") or text.size("intermediate_size")
    per_token = text.get("num_experts_per_tok") or 1
    expert = 3 * hidden_size * width
    always = expert_layers * _shared_expert_parameters(text, hidden_size, width)
    if dense_layers:
        always += dense_layers * 3 * hidden_size * text.size("intermediate_size")
    routed, active = expert_layers * experts * expert, expert_layers * per_token * expert
    router = expert_layers * experts * hidden_size
    return [
        Weights("mlp", always, always, split=True, quantized=True),
        Weights("experts", routed, active, True, True, experts, per_token),
        Weights("router", router, router, split=False, quantized=False),
    ]


def _shared_expert_parameters(text: _Fields, hidden_size: int, width: int) -> int:
    shared = text.get("n_shared_experts") or 0
    if shared:
        return int(3 * hidden_size * width * shared)
    shared_width = text.get("shared_expert_intermediate_size") or 0
    return 3 * hidden_size * shared_width + hidden_size if shared_width else 0


def _linear_attention_layers(text: _Fields, layers: int) -> int:
    kinds = text.get("layer_types")
    if kinds:
        return sum(kind == "linear_attention" for kind in kinds)
    interval = text.get("full_attention_interval")
    return layers - layers // interval if interval else 0


def _linear_attention_widths(text: _Fields) -> tuple[int, int]:
    keys = text.size("linear_num_key_heads") * text.size("linear_key_head_dim")
    values = text.size("linear_num_value_heads") * text.size("linear_value_head_dim")
    return keys, values


def _linear_attention_parameters(text: _Fields) -> int:
    """One gated delta net layer: q, k, v, output gate, decay and beta, convolution, norm and output projection."""
    hidden_size, value_heads = text.size("hidden_size"), text.size("linear_num_value_heads")
    keys, values = _linear_attention_widths(text)
    convolution = (2 * keys + values) * text.size("linear_conv_kernel_dim")
    projections = hidden_size * (2 * keys + 2 * values) + hidden_size * 2 * value_heads + values * hidden_size
    return projections + convolution + 2 * value_heads + text.size("linear_value_head_dim")


def _state_values(text: _Fields) -> int:
    """Values of one linear-attention layer's state for one sequence: convolution window and recurrent matrix."""
    keys, values = _linear_attention_widths(text)
    window = (2 * keys + values) * (text.size("linear_conv_kernel_dim") - 1)
    matrix = values * text.size("linear_key_head_dim")
    return window + matrix
