"""Parameters of attention layers and what they keep of each token: grouped heads, latent attention, windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ascend_facts.config_fields import Fields, UnreadableConfig
from ascend_facts.families import Family

INDEXER_KEY_BYTES = 132  # a key of 128 fp8 values and its scale, a layer and token (DeepSeek-V3.2's technical report)


@dataclass(frozen=True, slots=True)
class CacheLayers:
    """Attention layers of one kind. `values` are those that one head keeps of a token: key and value."""

    layers: int
    kv_heads: int
    values: int
    window: int = 0  # tokens that the layer looks back; 0 is all of them
    is_latent: bool = False  # one latent vector for all heads (MLA): every rank keeps it whole

    def values_per_token(self, tensor_parallel_size: int) -> int:
        """Values of one token in all of these layers on one rank: heads are divided, or copied beyond their number."""
        heads = 1 if self.is_latent else max(1, self.kv_heads // tensor_parallel_size)
        return self.layers * heads * self.values


@dataclass(frozen=True, slots=True)
class Heads:
    """Sizes of a layer's attention."""

    queries: int
    key_values: int
    width: int


def heads_of(fields: Fields) -> Heads:
    """Heads of the model's layers. Raises UnreadableConfig."""
    hidden_size, queries = fields.size("hidden_size"), fields.size("num_attention_heads")
    width = fields.optional_size("head_dim") or hidden_size // queries
    if width < 1:
        raise UnreadableConfig(f"config.json has {queries} heads in a hidden size of {hidden_size}: one is wrong")
    return Heads(queries, _key_value_heads(fields, queries), width)


def _key_value_heads(fields: Fields, queries: int) -> int:
    if fields.flag("multi_query_attention"):  # ChatGLM
        return fields.optional_size("multi_query_group_num") or 1
    new_falcon = fields.flag("new_decoder_architecture")
    if fields.flag("multi_query") and not new_falcon:  # Falcon 7B, GPT-BigCode
        return 1
    if fields.text("model_type") == "gpt_bigcode" and fields.flag("multi_query", default=True):
        return 1
    return fields.optional_size("num_key_value_heads") or queries


def attention_parameters(fields: Fields, family: Family, heads: Heads) -> int:
    """One layer's projections and, where the model has them, biases and norms of queries and keys."""
    hidden_size = fields.size("hidden_size")
    if fields.optional_size("kv_lora_rank"):
        return _latent_parameters(fields, hidden_size, heads.queries)
    if fields.optional_size("o_lora_rank"):
        return _compressed_parameters(fields, hidden_size, heads)
    query_width, kv_width = heads.queries * heads.width, heads.key_values * heads.width
    gate_width = query_width if fields.flag("attn_output_gate") else 0  # Qwen3.5: a gate as wide as the queries
    projections = hidden_size * (query_width + gate_width + 2 * kv_width) + query_width * hidden_size
    bias = _bias(fields, family)
    biases = (query_width + 2 * kv_width if bias else 0) + (hidden_size if bias == "qkvo" else 0)
    sinks = heads.queries if fields.text("model_type") == "gpt_oss" else 0
    return projections + biases + sinks + _qk_norm(fields, family, heads)


def _bias(fields: Fields, family: Family) -> str:
    if fields.flag("use_bias") or fields.flag("bias") or fields.raw("attention_bias") is True:
        with_output = fields.flag(family.out_bias) if family.out_bias else family.bias != "qkv"
        return "qkvo" if with_output else "qkv"
    if fields.flag("qkv_bias") or fields.flag("use_qkv_bias") or fields.flag("add_qkv_bias"):
        return "qkv"
    silent = all(fields.raw(name) is None for name in ("attention_bias", "qkv_bias", "add_qkv_bias", "use_bias"))
    return family.bias if silent else ""


def _qk_norm(fields: Fields, family: Family, heads: Heads) -> int:
    if family.qk_norm == "width":
        return (heads.queries + heads.key_values) * heads.width
    asked = fields.flag("use_qk_norm") and fields.text("model_type") in ("glm4_moe", "hunyuan_v1_moe")
    return 2 * heads.width if family.qk_norm == "head" or asked else 0


def _latent_parameters(fields: Fields, hidden_size: int, heads: int) -> int:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1), without the indexer of V3.2."""
    nope, rope = fields.size("qk_nope_head_dim"), fields.size("qk_rope_head_dim")
    value, latent = fields.size("v_head_dim"), fields.size("kv_lora_rank")
    query_rank = fields.optional_size("q_lora_rank")
    query_width = heads * (nope + rope)
    query = (
        hidden_size * query_rank + query_rank * query_width + query_rank if query_rank else hidden_size * query_width
    )
    key_value = hidden_size * (latent + rope) + latent * heads * (nope + value) + latent
    return query + key_value + heads * value * hidden_size


def _compressed_parameters(fields: Fields, hidden_size: int, heads: Heads) -> int:
    """DeepSeek-V4's layer: low-rank queries, one key-value head, an output in groups of low rank; no compressor."""
    rank, groups, out_rank = fields.size("q_lora_rank"), fields.size("o_groups"), fields.size("o_lora_rank")
    query_width = heads.queries * heads.width
    query = hidden_size * rank + rank * query_width + rank
    key_value = hidden_size * heads.width + heads.width
    output = query_width * out_rank + groups * out_rank * hidden_size
    return query + key_value + output


def indexer_parameters(fields: Fields, attention_layers: int) -> int:
    """The lightning indexers of sparse attention (DeepSeek-V3.2), all layers; 0 for a model without them."""
    heads, width = fields.optional_size("index_n_heads"), fields.optional_size("index_head_dim")
    if not heads or not width or not fields.optional_size("q_lora_rank"):
        return 0
    hidden_size, rank = fields.size("hidden_size"), fields.size("q_lora_rank")
    each = rank * heads * width + hidden_size * width + 2 * width + hidden_size * heads
    return indexer_layers(fields, attention_layers) * each


def indexer_layers(fields: Fields, attention_layers: int) -> int:
    """Layers with an indexer of their own: GLM-5.2 shares one among several."""
    if not fields.optional_size("index_n_heads"):
        return 0
    kinds = fields.items("indexer_types")
    return sum(kind == "full" for kind in kinds) if kinds else attention_layers


def cache_layers(fields: Fields, attention_layers: int, heads: Heads, max_context: int) -> tuple[CacheLayers, ...]:
    """The attention layers by what they keep: all tokens, or those of a window."""
    latent = fields.optional_size("kv_lora_rank")
    if latent:
        width = latent + fields.size("qk_rope_head_dim")
        return (CacheLayers(attention_layers, 1, width, is_latent=True),)
    if ratios := fields.items("compress_ratios"):
        return _compressed_caches(fields, ratios[:attention_layers], heads)
    window = _window(fields)
    windowed = _windowed_layers(fields, attention_layers) if window and window < max_context else 0
    kinds = []
    if full := attention_layers - windowed:
        wide = fields.optional_size("global_head_dim") or heads.width
        kv_heads = fields.optional_size("num_global_key_value_heads") or heads.key_values
        kinds.append(CacheLayers(full, kv_heads, 2 * wide))
    if windowed:
        kinds.append(CacheLayers(windowed, heads.key_values, 2 * heads.width, window))
    return tuple(kinds)


def _compressed_caches(fields: Fields, ratios: Sequence[object], heads: Heads) -> tuple[CacheLayers, ...]:
    """DeepSeek-V4: every layer keeps a window, and most one entry for each 4 or 128 tokens, keys being values too."""
    caches = [CacheLayers(len(ratios), 1, heads.width, fields.size("sliding_window"), is_latent=True)]
    for ratio in sorted({ratio for ratio in ratios if isinstance(ratio, int) and ratio > 0}):
        caches.append(CacheLayers(ratios.count(ratio), 1, -(-heads.width // ratio), is_latent=True))
    return tuple(caches)


def _window(fields: Fields) -> int:
    if fields.raw("use_sliding_window") is False:
        return 0
    return fields.optional_size("sliding_window") or fields.optional_size("attention_chunk_size")


def _windowed_layers(fields: Fields, attention_layers: int) -> int:
    """Layers that look back a window only: named one by one, or all but each n-th, or all."""
    kinds = fields.items("layer_types")
    if kinds:
        return sum(kind in ("sliding_attention", "chunked_attention") for kind in kinds)
    if fields.text("model_type").startswith("llama4"):
        every = fields.optional_size("no_rope_layer_interval") or 4
        return attention_layers - attention_layers // every
    if fields.text("model_type") == "gpt_oss":
        return (attention_layers + 1) // 2
    pattern = fields.optional_size("sliding_window_pattern")
    if pattern:
        return attention_layers - attention_layers // pattern
    if fields.flag("use_sliding_window"):  # Qwen2: layers from max_window_layers on
        return max(0, attention_layers - (fields.optional_size("max_window_layers") or 0))
    return attention_layers
