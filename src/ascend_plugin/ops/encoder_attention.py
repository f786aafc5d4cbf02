"""Attention of vision and audio towers: the sequences of a batch packed one behind another, without masks.

ATB's SelfAttention on unpadded sequences serves every chip; lengths are a host-side argument, so that pictures of any
sizes are one launch a layer and nothing grows with the square of a picture. Models hand over the ends of sequences:
those that ask for a backend's own form of them get one that stays on the host, any other is read once a forward pass.
"""

from __future__ import annotations

import numpy as np
import torch
import torch_npu
from vllm.model_executor.custom_op import op_registry_oot
from vllm.model_executor.layers.attention.mm_encoder_attention import MMEncoderAttention
from vllm.v1.attention.backends.registry import AttentionBackendEnum

HEAD_SIZE_STEP = 16  # ATB on Atlas inference products: a multiple of 16
PADDED_HEAD_SIZE = 128  # sizes between 64 and 128 are known to run padded to this one (vllm-ascend, both families)
UNPADDED_HEAD_SIZE = 64
LENGTHS = "ascend_lengths"  # attribute of a tensor of ends, with the lengths between them


class AscendEncoderAttention(MMEncoderAttention):
    """vLLM's layer on ATB's operator; float32 towers keep to it in float16, as the chip multiplies nothing wider."""

    @classmethod
    def maybe_recompute_cu_seqlens(
        cls,
        attn_backend: AttentionBackendEnum,
        cu_seqlens: np.ndarray,
        hidden_size: int,
        tp_size: int,
        device: torch.device,
        fp8_padded_hidden_size: int | None = None,
    ) -> torch.Tensor:
        """The ends of sequences as they are, on the host, where the operator wants them."""
        return torch.from_numpy(np.ascontiguousarray(cu_seqlens, dtype=np.int32))

    @classmethod
    def maybe_compute_seq_lens(
        cls, attn_backend: AttentionBackendEnum, cu_seqlens: np.ndarray, device: torch.device
    ) -> torch.Tensor | None:
        return None

    def forward_oot(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cu_seqlens: torch.Tensor | None = None,
        max_seqlen: torch.Tensor | None = None,
        sequence_lengths: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Query [batch, tokens, heads * size] or [batch, tokens, heads, size]; the result has its shape.

        cu_seqlens [sequences + 1]: where sequences begin in a batch of one; without it each row is one sequence.
        """
        shape, size = query.shape, self.head_size
        rows, tokens = shape[0], shape[1]
        if cu_seqlens is not None:
            lengths = lengths_between(cu_seqlens)
        else:
            lengths = torch.full((rows,), tokens, dtype=torch.int32)
            if key.shape[1] != tokens:
                lengths = torch.stack([lengths, torch.full_like(lengths, key.shape[1])])
        packed = [
            _packed(query, self.num_heads, size),
            _packed(key, self.num_kv_heads, size),
            _packed(value, self.num_kv_heads, size),
        ]
        out = torch.empty_like(packed[0])
        torch_npu._npu_flash_attention_unpad(
            query=packed[0],
            key=packed[1],
            value=packed[2],
            seq_len=lengths,
            scale_value=self.scale,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            out=out,
        )
        return out[..., :size].to(query.dtype).reshape(shape)


def lengths_between(ends: torch.Tensor) -> torch.Tensor:
    """[sequences] int32 on the host: tokens between neighbours of `ends`, empty sequences left out.

    Waits for the device once for each tensor that is there: the layers of a tower are given the same one.
    """
    lengths: torch.Tensor | None = getattr(ends, LENGTHS, None)
    if lengths is None:
        lengths = torch.diff(ends.cpu()).to(torch.int32)
        lengths = lengths[lengths > 0]
        setattr(ends, LENGTHS, lengths)
    return lengths


def padded_size(head_size: int) -> int:
    """The head size that the operator is given."""
    if UNPADDED_HEAD_SIZE < head_size < PADDED_HEAD_SIZE:
        return PADDED_HEAD_SIZE
    return -(-head_size // HEAD_SIZE_STEP) * HEAD_SIZE_STEP


def _packed(x: torch.Tensor, heads: int, size: int) -> torch.Tensor:
    """[.., heads * size] or [.., heads, size] as [tokens, heads, padded size] in memory of its own."""
    x = x.reshape(-1, heads, size)
    if x.dtype == torch.float32:
        x = x.to(torch.float16)
    if padded_size(size) != size:
        return torch.nn.functional.pad(x, (0, padded_size(size) - size))
    return x.contiguous()


def register() -> None:
    """Put it in the place of vLLM's, and of Whisper's subclass. Can be repeated."""
    from vllm.model_executor.models.whisper import WhisperEncoderAttention

    for base in (MMEncoderAttention, WhisperEncoderAttention):
        if base.__name__ in op_registry_oot:
            continue
        mixed = (AscendEncoderAttention,) if base is MMEncoderAttention else (base, AscendEncoderAttention)
        ours = type(f"Ascend{base.__name__}", mixed, {"__doc__": AscendEncoderAttention.__doc__})
        base.register_oot(ours, name=base.__name__)
