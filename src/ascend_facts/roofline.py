"""The least time that a step can take on a chip, and the time that a simple model expects.

Floors are arithmetic on published peaks: bytes over bandwidth, operations over throughput. The modelled times take the
shares of peaks, launches and collectives of the model of time (time_model.py), and are labeled so everywhere.
Formulas: a decode step of B sequences at context C reads each rank's weights once and B*C cached tokens, and does two
operations per parameter and token; prefill adds the attention of T*T/2 pairs.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ascend_facts.chips import ChipSpec
from ascend_facts.model_shape import ModelShape
from ascend_facts.quantized_format import WeightFormat, bytes_of_weight
from ascend_facts.time_model import collective_us

CACHE_VALUE_BYTES = 2
OFFLINE_BATCH = 256  # sequences that vLLM decodes together (max_num_seqs)


@cache
def assumptions() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("assumptions.toml").read_text(encoding="utf-8"))


def _device() -> dict[str, float]:
    """How many operators and collectives a step has."""
    device: dict[str, float] = assumptions()["device"]
    return device


@dataclass(frozen=True, slots=True)
class Placement:
    """A model on `ranks` chips of one kind, its weights in one format."""

    shape: ModelShape
    chip: ChipSpec
    ranks: int
    weight_format: WeightFormat = "fp16"

    def step_bytes(self, tokens: int, cached_tokens: int, sequences: int) -> float:
        """Bytes that one rank must read in a step of `tokens` tokens over caches of `cached_tokens` tokens in all."""
        total = 0.0
        for weights in self.shape.weights:
            read = weights.parameters_read(tokens)
            if weights.kind == "lm_head" and not weights.parameters:  # tied: the embedding table is read as the head
                read = weights.per_token
            weight_format = self.weight_format if weights.quantized else "fp16"
            width = bytes_of_weight(weight_format, self.shape.stored.group_size)
            total += read * width / (self.ranks if weights.split else 1)
        values = sequences * self.shape.attended_values(self.ranks, cached_tokens // sequences)
        state = sequences * self.shape.state_bytes_per_sequence("float16") / self.ranks
        return total + values * CACHE_VALUE_BYTES + 2 * state  # states are read and written

    def step_operations(self, tokens: int, head_tokens: int, attended_pairs: float) -> float:
        """Multiplications and additions of one rank; the head runs only for the tokens that are sampled from."""
        total = 0.0
        for weights in self.shape.weights:
            total += 2 * weights.per_token * (head_tokens if weights.kind == "lm_head" else tokens)
        return (total + attended_pairs * self._operations_a_pair()) / self.ranks

    def _operations_a_pair(self) -> int:
        """Of a query and a cached token, all layers: two products with the key's width and the value's.

        The latent of MLA is key and value at once, for every head.
        """
        heads = self.shape.heads
        return sum(
            2 * heads * layers.layers * layers.values * (2 if layers.is_latent else 1) for layers in self.shape.caches
        )

    @property
    def peak_operations_a_second(self) -> float:
        if self.weight_format == "w8a8":
            return self.chip.int8_tops * 1e12
        if self.weight_format == "fp8" and self.chip.has_fp8:
            return self.chip.fp8_tflops * 1e12
        return self.chip.fp16_tflops * 1e12

    def decode_floor_ms(self, sequences: int, context: int) -> float:
        """Least time of a decode step: `sequences` sequences, each with `context` tokens in its cache."""
        seconds_reading = self.step_bytes(sequences, sequences * context, sequences) / (self.chip.bandwidth_gbps * 1e9)
        operations = self.step_operations(sequences, sequences, float(sequences * context))
        return 1e3 * max(seconds_reading, operations / self.peak_operations_a_second)

    def prefill_floor_ms(self, tokens: int) -> float:
        """Least time to the first token of a prompt of `tokens` tokens, alone on the chips."""
        seconds_reading = self.step_bytes(tokens, 0, 1) / (self.chip.bandwidth_gbps * 1e9)
        operations = self.step_operations(tokens, 1, tokens * tokens / 2)
        return 1e3 * max(seconds_reading, operations / self.peak_operations_a_second)

    def offline_floor_s(self, prompts: int, input_tokens: int, output_tokens: int, batch: int = OFFLINE_BATCH) -> float:
        """Least duration of an offline run: every prompt prefilled at peak, then full batches decoded to the end."""
        together = min(prompts, batch)
        steps = prompts * output_tokens / together
        decoding_ms = steps * self.decode_floor_ms(together, input_tokens + output_tokens // 2)
        operations = self.step_operations(input_tokens, 1, input_tokens**2 / 2)
        return prompts * operations / self.peak_operations_a_second + decoding_ms / 1e3

    def collectives_ms(self, tokens: int) -> float:
        """Modelled time of a step's all-reduces over the slowest link taking part."""
        message = tokens * self.shape.hidden_size * CACHE_VALUE_BYTES
        each_us = collective_us(self.chip, self.chip.link_of(self.ranks), "all_reduce", self.ranks, message)
        return _device()["collectives_a_layer"] * self.shape.layers * each_us / 1e3

    def launches_ms(self, launches_a_layer: float | None = None) -> float:
        """Of a step; `launches_a_layer` are another engine's device operations."""
        device = _device()
        a_layer = device["launches_a_layer"] if launches_a_layer is None else launches_a_layer
        return (a_layer * self.shape.layers + device["launches_a_step"]) * self.chip.launch_us / 1e3

    def modeled_decode_ms(self, sequences: int, context: int, launches_a_layer: float | None = None) -> float:
        """Expected time of a decode step replayed as a graph."""
        reading_ms = 1e3 * self.step_bytes(sequences, sequences * context, sequences) / (self.chip.bandwidth_gbps * 1e9)
        operations = self.step_operations(sequences, sequences, float(sequences * context))
        busy_ms = self._busy_ms(reading_ms, operations)
        return busy_ms + self.launches_ms(launches_a_layer) + self.collectives_ms(sequences)

    def modeled_eager_decode_ms(self, sequences: int, context: int) -> float:
        """Expected time of the same step launched op by op from the host of the published figures."""
        host_ms = float(assumptions()["published"]["host_ms_a_layer"]) * self.shape.layers
        return max(host_ms, self.modeled_decode_ms(sequences, context))

    def modeled_prefill_ms(self, tokens: int, launches_a_layer: float | None = None) -> float:
        operations = self.step_operations(tokens, 1, tokens * tokens / 2)
        reading_ms = 1e3 * self.step_bytes(tokens, 0, 1) / (self.chip.bandwidth_gbps * 1e9)
        busy_ms = self._busy_ms(reading_ms, operations)
        return busy_ms + self.launches_ms(launches_a_layer) + self.collectives_ms(tokens)

    def _busy_ms(self, reading_ms: float, operations: float) -> float:
        """The longer of memory and cube, at the shares of their peaks that kernels reach."""
        computing_ms = 1e3 * operations / self.peak_operations_a_second
        return max(reading_ms / self.chip.bandwidth_share, computing_ms / self.chip.cube_share)
