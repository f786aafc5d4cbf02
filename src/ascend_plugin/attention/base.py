"""What attention has in common on every chip: a layer's arguments and refusals, the cache write, encoders."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch_npu
from vllm.config import get_current_vllm_config
from vllm.v1.attention.backend import AttentionBackend, AttentionImpl, AttentionType
from vllm.v1.kv_cache_layout import KVCacheLayout

from ascend_plugin.attention.metadata import AscendMetadata
from ascend_plugin.attention.unfused import UnfusedPagedAttention

KeysAndValues = tuple[torch.Tensor, torch.Tensor]
ABSENT = {"chunk_lookback": -1}  # how arguments say that there is no such thing, where neither None nor False does


class AscendBackend(AttentionBackend):
    """The answers that vLLM gets about attention on any Ascend chip."""

    forward_includes_kv_cache_update = True

    @staticmethod
    def get_name() -> str:
        return "CUSTOM"

    @classmethod
    def supported_kv_cache_layouts(cls) -> tuple[KVCacheLayout, ...]:
        return (KVCacheLayout.LBNHC,)

    @classmethod
    def supports_sliding_window(cls) -> bool:
        return True

    @classmethod
    def supports_sink(cls) -> bool:
        return True

    @classmethod
    def supports_attn_type(cls, attn_type: str) -> bool:
        return attn_type in (AttentionType.DECODER, AttentionType.ENCODER_ONLY)


class AscendAttention(AttentionImpl[AscendMetadata]):
    """One layer's attention; a chip's operators are in `attend` and `encode`."""

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int | None = None,
        alibi_slopes: list[float] | None = None,
        sliding_window: int | None = None,
        kv_cache_dtype: str = "auto",
        logits_soft_cap: float | None = None,
        attn_type: str = AttentionType.DECODER,
        kv_sharing_target_layer_name: str | None = None,
        sinks: torch.Tensor | None = None,
        **unknown: object,
    ) -> None:
        """sinks [heads]: a score of each head that takes part in the softmax and has no value.

        Raises ValueError for any other argument that a model's class gives and this does not know.
        """
        if given := sorted(name for name, value in unknown.items() if value not in (None, False, ABSENT.get(name))):
            raise ValueError(
                f"Use another model (`ascend models` lists those that were run): this one's attention has "
                f"{' and '.join(given)}, which no attention of this plugin computes."
            )
        if attn_type == AttentionType.ENCODER_ONLY and sliding_window is not None:
            _refuse_window(sliding_window, get_current_vllm_config().model_config.max_model_len)
        self.num_heads = num_heads
        self.head_size = head_size
        self.scale = scale
        self.num_kv_heads = num_kv_heads or num_heads
        self.sliding_window = sliding_window
        self.kv_cache_dtype = kv_cache_dtype
        self.attn_type = attn_type
        self.shares_cache = kv_sharing_target_layer_name is not None
        self.unfused: UnfusedPagedAttention | None = None
        if alibi_slopes is not None or logits_soft_cap or sinks is not None:
            if attn_type == AttentionType.ENCODER_ONLY:
                raise ValueError(
                    "An encoder whose attention has ALiBi, sinks or a soft cap on scores does not run here yet."
                )
            heads = num_heads, self.num_kv_heads, head_size
            self.unfused = UnfusedPagedAttention(*heads, scale, sliding_window, logits_soft_cap, alibi_slopes, sinks)

    def forward(
        self,
        layer: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor | None,
        value: torch.Tensor | None,
        kv_cache: KeysAndValues,
        attn_metadata: AscendMetadata | None,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
        output_block_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend from query [T, heads, size] to the cache; key, value [T, kv heads, size] are written to it first.

        Where the cache has another dtype than the model (float32 on a chip whose cube has none) it is the operators'.
        """
        if attn_metadata is None:  # the profile run, before there is a cache
            if self.unfused is not None:
                self.unfused.reserve(query.device)
            return output.zero_()
        tokens, out = attn_metadata.num_tokens, output
        new = None if key is None else (key, value)
        if tokens != query.shape[0]:
            query, out = query[:tokens], output[:tokens]
            new = None if key is None else (key[:tokens], value[:tokens])
        if self.attn_type == AttentionType.ENCODER_ONLY:
            self.encode(query, *new, attn_metadata, out)
            return output
        dtype = kv_cache[0].dtype
        if new is not None and dtype != query.dtype:
            new = new[0].to(dtype), new[1].to(dtype)
        if new is not None and not self.shares_cache:
            new = _contiguous(*new)
            self.write(*new, kv_cache, attn_metadata)
        if self.unfused is not None:
            self.unfused.attend(query, kv_cache, attn_metadata, out)
            return output
        attended = out if dtype == query.dtype else torch.empty_like(out, dtype=dtype)
        query = query.to(dtype)
        self.attend(layer, query, new, kv_cache, attn_metadata, attended)
        if not attn_metadata.causal and new is not None:
            self._encode_prompts(query, *new, attn_metadata, attended)
        if attended is not out:
            out.copy_(attended)
        return output

    def _encode_prompts(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, metadata: AscendMetadata, out: torch.Tensor
    ) -> None:
        """Write over what tokens of prompts saw looking back, where they see one another (a prefix LM, HRM-Text).

        vLLM cuts no prompt of such a model in chunks and takes none from the cache: a prompt is here whole.
        """
        for tokens, prompts in metadata.whole_prompts:
            self.encode(query[tokens], key[tokens], value[tokens], prompts, out[tokens])

    def write(self, key: torch.Tensor, value: torch.Tensor, kv_cache: KeysAndValues, metadata: AscendMetadata) -> None:
        """Put this step's keys and values [T, kv heads, size] into the cache; a negative slot is not written."""
        torch_npu._npu_reshape_and_cache(key, value, *kv_cache, metadata.slot_mapping)

    @abstractmethod
    def attend(
        self,
        layer: torch.nn.Module,
        query: torch.Tensor,
        new: KeysAndValues | None,
        kv_cache: KeysAndValues,
        metadata: AscendMetadata,
        out: torch.Tensor,
    ) -> None:
        """Fill out [T, heads, size] from the cache, in which `new`, this step's keys and values, already are."""

    @abstractmethod
    def encode(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, metadata: AscendMetadata, out: torch.Tensor
    ) -> None:
        """Fill out with the attention of whole sequences, of which every token sees every other."""


def _refuse_window(window: int, longest: int) -> None:
    """Raises ValueError for an encoder whose window some text outgrows: `encode` lets every token see every other."""
    if window < longest:
        raise ValueError(
            f"Give --max-model-len {window}, or use another model: an encoder's attention sees a text whole here, and "
            f"layers of this one (ModernBERT's kind) see {window - 1} tokens to each side."
        )


def unfused_attention_of(layer: object) -> UnfusedPagedAttention | None:
    """The composed attention of a layer of vLLM's static forward context, None where it has an operator or none."""
    return getattr(getattr(layer, "impl", None), "unfused", None)


def _contiguous(key: torch.Tensor, value: torch.Tensor) -> KeysAndValues:
    """Key and value [T, kv heads, size] in memory of their own, which the cache write asks for.

    Both are columns of the fused projection's output, one after the other, so that one copy serves where two would be
    made. A key that a norm has already written elsewhere stays as it is.
    """
    gap = value.storage_offset() - key.storage_offset()
    beside = gap == key.shape[1] * key.shape[2] and key.stride() == value.stride() and key.shape == value.shape
    if key.is_contiguous() or not beside or key.untyped_storage().data_ptr() != value.untyped_storage().data_ptr():
        return key, value
    return key.as_strided((2, *key.shape), (gap, *key.stride())).contiguous().unbind()
