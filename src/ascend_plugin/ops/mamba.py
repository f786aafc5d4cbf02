"""Mamba 1, Mamba 2 and short convolutions (LFM2): vLLM's layers with the recurrence in stock operators."""

from __future__ import annotations

import torch
from vllm.distributed import get_tensor_model_parallel_world_size
from vllm.model_executor.custom_op import PluggableLayer, op_registry_oot
from vllm.model_executor.layers.mamba.mamba_mixer import MambaMixer
from vllm.model_executor.layers.mamba.mamba_mixer2 import MambaMixer2
from vllm.model_executor.layers.mamba.mamba_utils import MambaStateShapeCalculator
from vllm.model_executor.layers.mamba.short_conv import ShortConv

from ascend_plugin import detection
from ascend_plugin.ops import state_space
from ascend_plugin.ops.gated_delta_rule import ChunkPlan
from ascend_plugin.ops.recurrent import Inputs, RecurrentLayer


class AscendMamba2(RecurrentLayer, MambaMixer2):  # type: ignore[misc]
    """State-space heads with one decay each."""

    def forward(self, hidden_states: torch.Tensor, mup_vector: torch.Tensor | None = None) -> torch.Tensor:
        projected, _ = self.in_proj(hidden_states)
        if mup_vector is not None:
            projected = projected * mup_vector
        sizes = [self.tped_intermediate_size, self.tped_conv_size, self.tped_dt_size]
        gate, convolved, dt = projected.split(sizes, dim=-1)
        outputs = hidden_states.new_zeros(hidden_states.shape[0], self.tped_dt_size * self.head_dim)
        self.mix((convolved, state_space.time_step(dt, self.dt_bias)), outputs)
        output, _ = self.out_proj(self.norm(outputs, gate))
        return output

    def get_state_shape(self) -> tuple[tuple[int, ...], ...]:
        """Of one slot; drafts need no wider window, because the state after each token has a slot of its own."""
        return MambaStateShapeCalculator.mamba2_state_shape(
            get_tensor_model_parallel_world_size(),
            self.intermediate_size,
            self.n_groups,
            self.num_heads,
            self.head_dim,
            self.ssm_state_size,
            self.conv_kernel_size,
        )

    def _heads(self, mixed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x, b, c = self.split_hidden_states_B_C_fn(mixed.float())  # type: ignore[no-untyped-call]
        b, c = (value.unflatten(-1, (-1, self.ssm_state_size)) for value in (b, c))
        return x.unflatten(-1, (-1, self.head_dim)), b, c

    def _with_skip(self, outputs: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return (outputs + x * self.D.float().unsqueeze(-1)).flatten(-2)

    def advance(self, mixed: torch.Tensor, beside: Inputs, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, b, c = self._heads(mixed)
        outputs, after = state_space.heads_step(x, beside[0], self.A, b, c, state)
        return self._with_skip(outputs, x), after

    def run_sequences(
        self, mixed: torch.Tensor, beside: Inputs, state: torch.Tensor, plan: ChunkPlan
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x, b, c = self._heads(mixed)
        rounded = detection.current_chip().forms.compensated_products
        outputs, after = state_space.heads_chunked(x, beside[0], self.A, b, c, state, plan, rounded)
        return self._with_skip(outputs, x), after


class AscendMamba1(RecurrentLayer, MambaMixer):  # type: ignore[misc]
    """State-space channels with a decay for each of their numbers."""

    def forward(self, hidden_states: torch.Tensor, output: torch.Tensor) -> None:
        convolved, gate = self.in_proj(hidden_states)[0].chunk(2, dim=-1)
        scanned = torch.zeros_like(convolved)
        self.mix((convolved,), scanned)
        gated = scanned * torch.nn.functional.silu(gate)
        output[: hidden_states.shape[0]] = self.out_proj(gated)[0]

    def _selected(self, mixed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        dt, b, c = self._ssm_transform(mixed)
        step = state_space.time_step(dt.transpose(-2, -1), self._time_proj_bias())
        return mixed.float(), step, b.float(), c.float()

    def advance(self, mixed: torch.Tensor, beside: Inputs, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, dt, b, c = self._selected(mixed)
        outputs, after = state_space.channels_step(x, dt, self.A, b, c, state)
        return outputs + x * self.D.float(), after

    def run_sequences(
        self, mixed: torch.Tensor, beside: Inputs, state: torch.Tensor, plan: ChunkPlan
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x, dt, b, c = self._selected(mixed)
        outputs, after = state_space.channels_chunked(x, dt, self.A, b, c, state, plan)
        return outputs + x * self.D.float(), after


class AscendShortConv(RecurrentLayer, ShortConv):  # type: ignore[misc]
    """A gated convolution over a few tokens, which keeps nothing but its window."""

    silu = False

    @property
    def conv_kernel_size(self) -> int:  # type: ignore[override]
        return int(self.L_cache)

    def forward(self, hidden_states: torch.Tensor, output: torch.Tensor) -> None:
        before, after, x = self.in_proj(hidden_states)[0].chunk(3, dim=-1)
        convolved = torch.zeros_like(x)
        self.mix((before * x,), convolved)
        output[: hidden_states.shape[0]] = self.out_proj(after * convolved)[0]

    def convolution(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.conv.weight.squeeze(1), self.conv.bias  # type: ignore[operator]

    def get_state_shape(self) -> tuple[tuple[int, ...], ...]:  # type: ignore[override]
        """Of one slot, as above."""
        world = get_tensor_model_parallel_world_size()
        return MambaStateShapeCalculator.short_conv_state_shape(world, self.conv_dim, self.L_cache)

    def advance(self, mixed: torch.Tensor, beside: Inputs, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return mixed, state

    def run_sequences(
        self, mixed: torch.Tensor, beside: Inputs, state: torch.Tensor, plan: ChunkPlan
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return mixed, state


REPLACED: dict[type[PluggableLayer], type[PluggableLayer]] = {
    MambaMixer2: AscendMamba2,
    MambaMixer: AscendMamba1,
    ShortConv: AscendShortConv,
}


def register() -> None:
    """Put these in the place of vLLM's, for models that are made from now on. Can be repeated."""
    for layer, ours in REPLACED.items():
        if layer.__name__ not in op_registry_oot:
            layer.register_oot(ours, name=layer.__name__)
