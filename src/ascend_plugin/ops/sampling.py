"""Sampling on the device: filters as upstream, and the draw by inverse distribution where the chip draws no randoms."""

from __future__ import annotations

import numpy as np
import torch
from vllm.v1.sample.logits_processor.builtin import LogitBiasLogitsProcessor, MinTokensLogitsProcessor
from vllm.v1.sample.logits_processor.interface import LogitsProcessor
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler, apply_top_k_top_p

from ascend_facts.chips import ChipSpec

GENERATOR_STEP = 4  # how far vLLM's runner moves a generator back when it discards a token (_bookkeeping_sync)


def is_plain_greedy(metadata: SamplingMetadata) -> bool:
    """Whether every request just wants its likeliest token: no processing of logits, no log-probabilities."""
    budget = metadata.thinking_budget_state_holder
    return (
        metadata.all_greedy
        and metadata.no_penalties
        and metadata.max_num_logprobs is None
        and not metadata.logprob_token_ids
        and not metadata.bad_words_token_ids
        and metadata.allowed_token_ids_mask is None
        and (budget is None or not budget.has_tracked_requests())
        and all(_is_idle(processor) for processor in metadata.logitsprocs.non_argmax_invariant)
    )


def _is_idle(processor: LogitsProcessor) -> bool:
    """Whether a logits processor would change nothing in this batch; of one we do not know, no."""
    if isinstance(processor, LogitBiasLogitsProcessor):
        return not processor.biases
    if isinstance(processor, MinTokensLogitsProcessor):
        return not processor.min_toks
    return False


class AscendTopKTopPSampler(torch.nn.Module):
    """Drop-in for vLLM's TopKTopPSampler."""

    def __init__(self, upstream: TopKTopPSampler, chip: ChipSpec) -> None:
        super().__init__()
        self.logprobs_mode = upstream.logprobs_mode
        self.use_fp64_gumbel = upstream.use_fp64_gumbel
        self.upstream = upstream
        self.draws_on_device = chip.has_device_random
        self._random = np.random.default_rng(torch.initial_seed() % 2**63)

    def forward(
        self,
        logits: torch.Tensor,
        generators: dict[int, torch.Generator],
        k: torch.Tensor | None,
        p: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Sample [B] tokens from logits [B, V] after top-k and top-p; returns them and, if asked for, the logits."""
        if self.draws_on_device:
            return self.upstream.forward_native(logits, generators, k, p)
        logits = apply_top_k_top_p(logits, k, p)
        processed = None
        if self.logprobs_mode == "processed_logits":
            processed = logits
        elif self.logprobs_mode == "processed_logprobs":
            processed = logits.log_softmax(dim=-1, dtype=torch.float32)
        uniforms = torch.from_numpy(self._uniforms(logits.shape[0], generators)).pin_memory()
        return draw(logits, uniforms.to(logits.device, non_blocking=True)), processed

    def _uniforms(self, batch: int, generators: dict[int, torch.Generator]) -> np.ndarray:
        """[B] fp32 in [0, 1), one for each request; a seeded request's depends on its seed and step alone."""
        uniforms = self._random.random(batch, dtype=np.float32)
        for row, generator in generators.items():
            uniforms[row] = seeded_uniform(generator)
        return uniforms


def seeded_uniform(generator: torch.Generator) -> float:
    """The next uniform of a request's generator, whose offset counts the draws; reads and writes host state only."""
    offset = generator.get_offset()
    generator.set_offset(offset + GENERATOR_STEP)
    bits = np.random.Philox(key=generator.initial_seed() % 2**64, counter=offset)
    return float(np.random.Generator(bits).random(dtype=np.float32))


def draw(logits: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Sample one token a row of logits [B, V] by inverting its distribution at uniforms [B]; returns [B] int64.

    The token is the first whose cumulated probability exceeds uniform x total. Scaling by the row's own total, not by
    one, keeps rounding in the running sum from selecting past the end.
    """
    cumulated = logits.softmax(dim=-1, dtype=torch.float32).cumsum(dim=-1)
    threshold = uniforms[:, None] * cumulated[:, -1:]
    return (cumulated <= threshold).sum(dim=-1)
