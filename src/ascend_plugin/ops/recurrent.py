"""What recurrent layers have in common: a convolution and a state of each sequence, in pages of the cache.

A layer's step is the same whatever its recurrence is: read window and state of the step's sequences, convolve, run the
recurrence, write both back. A batch holds decoding sequences first, one token each, then prefilling ones; under
speculation decoding ones have their drafts too (gated_delta_metadata.py). Recurrences compute in fp32, whatever the
cache's precision. vLLM's metadata of gated delta nets describes a step of any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.mamba.mamba_utils import is_conv_state_dim_first
from vllm.v1.attention.backend import AttentionBackend
from vllm.v1.attention.backends.gdn_attn import GDNAttentionMetadata
from vllm.v1.kv_cache_interface import KVCacheSpec, MambaSpec

from ascend_plugin.ops import gated_delta_rule as rule
from ascend_plugin.ops.gated_delta_metadata import AscendGdnBackend, AscendGdnMetadata, Drafted
from ascend_plugin.ops.gated_delta_rule import ChunkPlan
from ascend_plugin.ops.rows import write_rows

Inputs = tuple[torch.Tensor, ...]  # of a step's tokens: what is convolved first, then what the recurrence takes beside


class RecurrentLayer:
    """Mixed into vLLM's layers, before them. A subclass has the recurrence in `advance` and `run_sequences`."""

    conv_kernel_size: int
    prefix: str
    kv_cache: tuple[torch.Tensor, ...]
    silu = True  # behind the convolution

    def advance(self, mixed: torch.Tensor, beside: Inputs, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One token of each sequence: its outputs [sequences, ...] and the states after it."""
        raise NotImplementedError

    def run_sequences(
        self, mixed: torch.Tensor, beside: Inputs, state: torch.Tensor, plan: ChunkPlan
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Whole sequences one after another: outputs [tokens, ...] and the states at their ends."""
        raise NotImplementedError

    def convolution(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight [channels, kernel] and bias."""
        conv: Any = self.conv1d  # type: ignore[attr-defined]
        return conv.weight.squeeze(1), conv.bias

    def get_attn_backend(self) -> type[AttentionBackend]:
        return AscendGdnBackend

    def get_kv_cache_spec(self, vllm_config: VllmConfig) -> KVCacheSpec | None:
        """vLLM's, without its promise of a state from within a step: states are written at a step's end only.

        Mamba 2 promises one, upon which the scheduler no longer ends a step where a state is to be kept, and the prefix
        cache hands out blocks that nobody wrote.
        """
        spec = super().get_kv_cache_spec(vllm_config)  # type: ignore[misc]
        if not isinstance(spec, MambaSpec):
            return spec
        return replace(spec, num_prefill_checkpoint_blocks=0, prefill_checkpoint_alignment=None)

    # ------------------------------------------------------------------ a step

    def mix(self, inputs: Inputs, outputs: torch.Tensor) -> None:
        """Run the layer for every sequence of the step; writes outputs [tokens, ...], zeros so far, and the states."""
        step = get_forward_context().attn_metadata
        if isinstance(step, dict):  # not so in the profile run, before there is a cache
            self.mix_step(inputs, step[self.prefix], outputs)

    def mix_step(self, inputs: Inputs, metadata: Any, outputs: torch.Tensor) -> None:
        """The same with the step's metadata of this layer."""
        if isinstance(metadata, AscendGdnMetadata) and metadata.drafted is not None:
            self._decode_drafts(inputs, metadata.drafted, outputs)
            if metadata.num_prefills:
                tokens = metadata.prefill_tokens
                parts = tuple(value.index_select(0, tokens) for value in inputs)
                write_rows(outputs, tokens, self._prefill(parts, metadata).to(outputs.dtype))
            return
        slots = metadata.non_spec_state_indices_tensor
        decodes = metadata.num_decode_tokens
        if not metadata.num_prefills:  # padded to a captured graph's size; padding rows use the null block
            decodes = slots.shape[0]
        if decodes:
            parts = tuple(value[:decodes] for value in inputs)
            outputs[:decodes] = self._decode(parts, slots[:decodes].long()).to(outputs.dtype)
        if metadata.num_prefills:
            part = slice(decodes, decodes + metadata.num_prefill_tokens)
            outputs[part] = self._prefill(tuple(value[part] for value in inputs), metadata).to(outputs.dtype)

    def _decode(self, inputs: Inputs, slots: torch.Tensor) -> torch.Tensor:
        window, state, padding = self._read(slots)
        mixed, window = rule.convolve_step(inputs[0], *self.convolution(), window, self.silu)
        outputs, state = self.advance(mixed, inputs[1:], state.float())
        self._write(slots, window, state, padding)
        return outputs

    def _decode_drafts(self, inputs: Inputs, drafted: Drafted, outputs: torch.Tensor) -> None:
        """Run the tokens of sequences that may have to take some back, keeping the state after each."""
        convolved, *beside = (_to_grid(value, drafted) for value in inputs)
        window, state, padding = self._read(drafted.read)
        mixed, rows = rule.convolve_steps(convolved, *self.convolution(), window, self.silu)
        results = []
        for token in range(drafted.length):
            output, state = self.advance(mixed[token], tuple(value[token] for value in beside), state.float())
            state = state.to(self._state_dtypes()[-1])  # rounded as in the steps of a sequence without drafts
            window = rows[token + 1 : token + self.conv_kernel_size].transpose(0, 1)
            self._write(drafted.write[token], window, state, padding)
            results.append(output)
        _from_grid(torch.stack(results).to(outputs.dtype), drafted, outputs)

    def _prefill(self, inputs: Inputs, metadata: GDNAttentionMetadata) -> torch.Tensor:
        plan: Any = metadata.chunk_indices
        count = metadata.num_prefills
        slots = metadata.prefill_state_indices[:count].long()
        # A block given to a new sequence still holds another one's state.
        fresh = ~metadata.prefill_has_initial_state[:count].view(-1, 1, 1)
        window, state, padding = self._read(slots)
        mixed, window = rule.convolve(inputs[0], *self.convolution(), window.masked_fill(fresh, 0), plan, self.silu)
        state = state.float().masked_fill(fresh.view(-1, *[1] * (state.dim() - 1)), 0)
        outputs, state = self.run_sequences(mixed, inputs[1:], state, plan)
        self._write(slots, window, state, padding)
        return outputs

    # ------------------------------------------------------------------ pages

    def bind_kv_cache(self, kv_cache: torch.Tensor) -> None:
        """Keep a block's page ([blocks, 1, 1, bytes], all states and padding) as one row of words.

        Indexing operators copy a strided tensor whole before they index it, so rows are read and written whole.
        """
        self.kv_cache = (kv_cache.flatten(1).view(torch.int32),)

    def _state_shapes(self) -> Sequence[tuple[int, ...]]:
        return tuple(self.get_state_shape())  # type: ignore[attr-defined]

    def _state_dtypes(self) -> Sequence[torch.dtype]:
        return tuple(self.get_state_dtype())  # type: ignore[attr-defined]

    def _read(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The convolution's inputs [slots, kernel - 1, channels], the states [slots, ...] or nothing, and padding."""
        pages = self.kv_cache[0].index_select(0, slots)
        shapes, dtypes = self._state_shapes(), self._state_dtypes()
        words = [prod(shape) * dtype.itemsize // pages.itemsize for shape, dtype in zip(shapes, dtypes, strict=True)]
        *parts, padding = pages.split([*words, pages.shape[1] - sum(words)], dim=1)
        window, *states = (
            part.contiguous().view(dtype).unflatten(1, shape)
            for part, dtype, shape in zip(parts, dtypes, shapes, strict=True)
        )
        window = window.transpose(1, 2) if is_conv_state_dim_first() else window
        return window, states[0] if states else window.new_empty(len(slots), 0), padding

    def _write(self, slots: torch.Tensor, window: torch.Tensor, state: torch.Tensor, padding: torch.Tensor) -> None:
        if is_conv_state_dim_first():
            window = window.transpose(1, 2)
        dtypes = self._state_dtypes()
        values = [window, state][: len(dtypes)]
        parts = [value.to(dtype).flatten(1).view(padding.dtype) for value, dtype in zip(values, dtypes, strict=True)]
        write_rows(self.kv_cache[0], slots, torch.cat([*parts, padding], dim=1))


def _to_grid(value: torch.Tensor, drafted: Drafted) -> torch.Tensor:
    """[tokens, ...] -> [L, R, ...], contiguous."""
    rows = drafted.read.shape[0]
    if drafted.tokens is not None:
        return value.index_select(0, drafted.tokens).unflatten(0, (drafted.length, rows))
    return value[: rows * drafted.length].unflatten(0, (rows, drafted.length)).transpose(0, 1).contiguous()


def _from_grid(grid: torch.Tensor, drafted: Drafted, outputs: torch.Tensor) -> None:
    """[L, R, ...] -> outputs [tokens, ...], where the grid's tokens belong."""
    length, rows = grid.shape[:2]
    if drafted.targets is not None:
        write_rows(outputs, drafted.targets, grid.flatten(0, 1).index_select(0, drafted.places))
    else:
        outputs[: rows * length].unflatten(0, (rows, length)).copy_(grid.transpose(0, 1))
