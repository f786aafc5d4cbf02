"""vLLM's gated delta net layer (Qwen3-Next, Qwen3.5) on stock operators, with its state in vLLM's cache.

The mathematics is in gated_delta_rule.py. A batch holds decoding sequences first, one token each, then prefilling ones;
under speculation decoding ones have their drafts too (gated_delta_metadata.py). Each part reads and writes the
convolution's and the rule's state of its sequences, in fp32 arithmetic whatever the cache's precision.
"""

from __future__ import annotations

from math import prod

import torch
from vllm.forward_context import get_forward_context
from vllm.model_executor.custom_op import op_registry_oot
from vllm.model_executor.layers.mamba.gdn.qwen_gdn_linear_attn import QwenGatedDeltaNetAttention
from vllm.model_executor.layers.mamba.mamba_utils import MambaStateShapeCalculator, is_conv_state_dim_first
from vllm.v1.attention.backend import AttentionBackend
from vllm.v1.attention.backends.gdn_attn import GDNAttentionMetadata

from ascend_plugin import detection
from ascend_plugin.ops import gated_delta_rule as rule
from ascend_plugin.ops.gated_delta_metadata import AscendGdnBackend, AscendGdnMetadata, Drafted
from ascend_plugin.ops.rows import write_rows


class AscendGatedDeltaNet(QwenGatedDeltaNetAttention):
    """The layer's projections are vLLM's; what lies between them is the rule in stock operators."""

    def get_attn_backend(self) -> type[AttentionBackend]:
        return AscendGdnBackend

    def get_state_shape(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of one slot; drafts need no wider window, because the state after each token has a slot of its own."""
        return MambaStateShapeCalculator.gated_delta_net_state_shape(
            self.tp_size,
            self.num_k_heads,
            self.num_v_heads,
            self.head_k_dim,
            self.head_v_dim,
            self.conv_kernel_size,
        )

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        qkvz, _ = self.in_proj_qkvz(hidden_states)
        ba, _ = self.in_proj_ba(hidden_states)
        qkv, z, b, a = self._split(qkvz, ba)
        outputs = torch.zeros_like(z)
        metadata = get_forward_context().attn_metadata
        if isinstance(metadata, dict):
            self._mix(qkv, b, a, metadata[self.prefix], outputs)
        return self._output_projection(outputs, z)

    def _split(
        self, qkvz: torch.Tensor, ba: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """[q | k | v] of all heads, the output gate z [tokens, heads, values], and the gates' projections."""
        if self.gqa_interleaved_layout:
            q, k, v, z, b, a = self.fix_query_key_value_ordering(qkvz, ba)
            return torch.cat([q.flatten(1), k.flatten(1), v.flatten(1)], dim=-1), z, b, a
        width = (self.key_dim * 2 + self.value_dim) // self.tp_size
        b, a = self.split_ba(ba)
        return qkvz[:, :width], qkvz[:, width:].unflatten(-1, (-1, self.head_v_dim)), b, a

    def _mix(
        self,
        qkv: torch.Tensor,
        b: torch.Tensor,
        a: torch.Tensor,
        metadata: GDNAttentionMetadata,
        outputs: torch.Tensor,
    ) -> None:
        """Run the rule for every sequence of the step; writes outputs [tokens, heads, values] and the states."""
        g, rate = rule.gates(a, b, self.A_log, self.dt_bias)
        if isinstance(metadata, AscendGdnMetadata):
            self._decode_drafts(qkv, g, rate, metadata.drafted, outputs)
            if metadata.num_prefills:
                tokens = metadata.prefill_tokens
                parts = (value.index_select(0, tokens) for value in (qkv, g, rate))
                write_rows(outputs, tokens, self._prefill(*parts, metadata).to(outputs.dtype))
            return
        slots = metadata.non_spec_state_indices_tensor
        decodes = metadata.num_decode_tokens
        if not metadata.num_prefills:  # padded to a captured graph's size; padding rows use the null block
            decodes = slots.shape[0]
        if decodes:
            part = slice(0, decodes)
            outputs[part] = self._decode(qkv[part], g[part], rate[part], slots[:decodes].long()).to(outputs.dtype)
        if metadata.num_prefills:
            part = slice(decodes, decodes + metadata.num_prefill_tokens)
            outputs[part] = self._prefill(qkv[part], g[part], rate[part], metadata).to(outputs.dtype)

    def _decode(self, qkv: torch.Tensor, g: torch.Tensor, rate: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        window, state, padding = self._read(slots)
        mixed, window = rule.convolve_step(qkv, *self._convolution(), window)
        outputs, state = rule.step(*self._heads(mixed), g, rate, state.float())
        self._write(slots, window, state, padding)
        return outputs

    def _decode_drafts(
        self, qkv: torch.Tensor, g: torch.Tensor, rate: torch.Tensor, drafted: Drafted, outputs: torch.Tensor
    ) -> None:
        """Run the tokens of sequences that may have to take some back, keeping the state after each."""
        qkv, g, rate = (_to_grid(value, drafted) for value in (qkv, g, rate))
        window, state, padding = self._read(drafted.read)
        mixed, inputs = rule.convolve_steps(qkv, *self._convolution(), window)
        q, k, v = self._heads(mixed)
        results = []
        for token in range(drafted.length):
            output, state = rule.step(q[token], k[token], v[token], g[token], rate[token], state.float())
            state = state.to(self.get_state_dtype()[1])  # rounded as in the steps of a sequence without drafts
            window = inputs[token + 1 : token + self.conv_kernel_size].transpose(0, 1)
            self._write(drafted.write[token], window, state, padding)
            results.append(output)
        _from_grid(torch.stack(results).to(outputs.dtype), drafted, outputs)

    def _prefill(
        self, qkv: torch.Tensor, g: torch.Tensor, rate: torch.Tensor, metadata: GDNAttentionMetadata
    ) -> torch.Tensor:
        plan, count = metadata.chunk_indices, metadata.num_prefills
        slots = metadata.prefill_state_indices[:count].long()
        # A block given to a new sequence still holds another one's state.
        fresh = ~metadata.prefill_has_initial_state[:count].view(-1, 1, 1)
        window, state, padding = self._read(slots)
        mixed, window = rule.convolve(qkv, *self._convolution(), window.masked_fill(fresh, 0), plan)
        state = state.float().masked_fill(fresh.unsqueeze(-1), 0)
        rounded = detection.current_chip().forms.compensated_products
        outputs, state = rule.chunked(*self._heads(mixed), g, rate, state, plan, rounded)
        self._write(slots, window, state, padding)
        return outputs

    def bind_kv_cache(self, kv_cache: torch.Tensor) -> None:
        """Keep a block's page ([blocks, 1, 1, bytes], both states and padding) as one row of words.

        Indexing operators copy a strided tensor whole before they index it, so rows are read and written whole.
        """
        self.kv_cache = (kv_cache.flatten(1).view(torch.int32),)

    def _read(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The convolution's inputs [slots, kernel - 1, channels], the states [slots, heads, values, keys], padding."""
        pages = self.kv_cache[0].index_select(0, slots)
        shapes, dtypes = self.get_state_shape(), self.get_state_dtype()
        words = [prod(shape) * dtype.itemsize // pages.itemsize for shape, dtype in zip(shapes, dtypes, strict=True)]
        *parts, padding = pages.split([*words, pages.shape[1] - sum(words)], dim=1)
        window, state = (
            part.contiguous().view(dtype).unflatten(1, shape)
            for part, dtype, shape in zip(parts, dtypes, shapes, strict=True)
        )
        return (window.transpose(1, 2) if is_conv_state_dim_first() else window), state, padding

    def _write(self, slots: torch.Tensor, window: torch.Tensor, state: torch.Tensor, padding: torch.Tensor) -> None:
        if is_conv_state_dim_first():
            window = window.transpose(1, 2)
        parts = [
            value.to(dtype).flatten(1).view(padding.dtype)
            for value, dtype in zip((window, state), self.get_state_dtype(), strict=True)
        ]
        write_rows(self.kv_cache[0], slots, torch.cat([*parts, padding], dim=1))

    def _convolution(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.conv1d.weight.squeeze(1), self.conv1d.bias

    def _heads(self, mixed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        keys = self.key_dim // self.tp_size
        q, k, v = mixed.split([keys, keys, self.value_dim // self.tp_size], dim=-1)
        q, k = (rule.unit(x.unflatten(-1, (-1, self.head_k_dim))) for x in (q, k))
        return q, k, v.unflatten(-1, (-1, self.head_v_dim)).float()


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


def register() -> None:
    """Put this in the place of vLLM's, for models that are made from now on. Can be repeated."""
    if QwenGatedDeltaNetAttention.__name__ not in op_registry_oot:
        QwenGatedDeltaNetAttention.register_oot(AscendGatedDeltaNet, name=QwenGatedDeltaNetAttention.__name__)
