"""Sampling on the device, with noise from the host where the chip draws none (see noise.py)."""

from __future__ import annotations

from types import FunctionType, MethodType
from typing import Any

import torch
from vllm.v1.outputs import LogprobsTensors
from vllm.v1.sample import rejection_sampler
from vllm.v1.sample.logits_processor.builtin import LogitBiasLogitsProcessor, MinTokensLogitsProcessor
from vllm.v1.sample.logits_processor.interface import LogitsProcessor
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler
from vllm.v1.sample.rejection_sampler import RejectionSampler
from vllm.v1.sample.sampler import Sampler

from ascend_facts.chips import ChipSpec
from ascend_plugin.ops.noise import HostNoise


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

    def __init__(self, upstream: TopKTopPSampler, chip: ChipSpec, noise: HostNoise) -> None:
        super().__init__()
        self.logprobs_mode = upstream.logprobs_mode
        self.use_fp64_gumbel = upstream.use_fp64_gumbel
        self.upstream = upstream
        self.draws_on_device = chip.forms.device_random
        self._noise = noise

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
        logits = keep_top(logits, k, p)
        processed = None
        if self.logprobs_mode == "processed_logits":
            processed = logits
        elif self.logprobs_mode == "processed_logprobs":
            processed = logits.log_softmax(dim=-1, dtype=torch.float32)
        batch, vocabulary = logits.shape
        return (logits + self._noise.gumbel(batch, vocabulary, generators, logits.device)).argmax(dim=-1), processed


def keep_top(logits: torch.Tensor, k: torch.Tensor | None, p: torch.Tensor | None) -> torch.Tensor:
    """Logits [B, V] with all but each row's k likeliest, and of those the likeliest that make up p, at -inf.

    The smallest logit that stays is found in a sorted copy, and the rest follows by comparison: upstream scatters the
    sorted copy back, which on Ascend 310P is work for the AI CPU from 48,000 columns on (ops-nn, scatter_elements.cpp).
    Of equal logits at the end either all stay or none.
    """
    if k is None and p is None:
        return logits
    ordered = logits.sort(dim=-1).values
    least = ordered[:, :1]
    if k is not None:
        least = ordered.gather(1, (logits.shape[1] - k.to(torch.int32)).to(torch.int64).unsqueeze(1))
        ordered = ordered.masked_fill(ordered < least, float("-inf"))
    if p is not None:
        left_out = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - p.unsqueeze(1)
        kept = ordered.masked_fill(left_out, torch.finfo(ordered.dtype).max).amin(dim=-1, keepdim=True)
        least = torch.minimum(torch.maximum(kept, least), ordered[:, -1:])  # the likeliest stays
    return logits.masked_fill_(logits < least, float("-inf"))


def sample_with(sampler: Sampler, verifier: RejectionSampler | None, noise: HostNoise, chip: ChipSpec) -> None:
    """Give a runner's samplers the filters, counts and random numbers of this module, as far as the chip needs them."""
    replaced: Any = sampler  # parts of it are replaced, which mypy holds to what they were
    replaced.topk_topp_sampler = AscendTopKTopPSampler(sampler.topk_topp_sampler, chip, noise)
    replaced.gather_logprobs = gather_logprobs
    if verifier is not None and not chip.forms.device_random:
        _verify_with(verifier, noise)


def gather_logprobs(logprobs: torch.Tensor, num_logprobs: int, token_ids: torch.Tensor) -> LogprobsTensors:
    """Sampler.gather_logprobs, which sums eight bytes for each token of the vocabulary to find a rank.

    logprobs [B, V], token_ids [B] int64; returns the tokens themselves before the num_logprobs likeliest.
    """
    likeliest, indices = torch.topk(logprobs, num_logprobs, dim=-1)
    tokens = token_ids.unsqueeze(-1)
    own = logprobs.gather(-1, tokens)
    ids = torch.cat((tokens, indices), dim=1).to(torch.int32)
    return LogprobsTensors(ids, torch.cat((own, likeliest), dim=1), count_greater(logprobs, own))


def count_greater(x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """[B] int32: how many of x [B, V] are at least values [B, 1]; summed in float32, exact for any vocabulary."""
    return (x >= values).to(torch.float32).sum(dim=-1).to(torch.int32)


def _verify_with(verifier: RejectionSampler, noise: HostNoise) -> None:
    """Let a rejection sampler filter with keep_top and take its random numbers from the host.

    It runs vLLM's own functions on other ones of their module: Ascend 310P hangs in exponential_ (vllm-ascend #8017).
    """

    def generate_uniform_probs(
        num_tokens: int, num_draft_tokens: list[int], generators: dict[int, torch.Generator], device: torch.device
    ) -> torch.Tensor:
        return torch.from_numpy(noise.uniforms(num_draft_tokens, generators)).pin_memory().to(device, non_blocking=True)

    def sample_recovered_tokens(
        max_spec_len: int,
        num_draft_tokens: list[int],
        cu_num_draft_tokens: torch.Tensor,
        draft_token_ids: torch.Tensor,
        draft_probs: torch.Tensor | None,
        target_probs: torch.Tensor,
        sampling_metadata: SamplingMetadata,
        device: torch.device,
        use_fp64_gumbel: bool = False,
    ) -> torch.Tensor:
        drafting = {row: each for row, each in sampling_metadata.generators.items() if num_draft_tokens[row]}
        inverse = noise.gumbel(len(num_draft_tokens), target_probs.shape[-1], drafting, device).exp()
        recovered = torch.empty_like(draft_token_ids)
        drafted = cu_num_draft_tokens, draft_token_ids, draft_probs
        rejection_sampler._sample_recovered_tokens(
            recovered, *drafted, target_probs, inverse, max_spec_len=max_spec_len
        )
        return recovered

    reject = _reaching(
        rejection_sampler.rejection_sample,
        generate_uniform_probs=generate_uniform_probs,
        sample_recovered_tokens=sample_recovered_tokens,
    )
    constrain = _reaching(rejection_sampler.apply_sampling_constraints, apply_top_k_top_p=keep_top)
    forward = _reaching(RejectionSampler.forward, rejection_sample=reject, apply_sampling_constraints=constrain)
    replaced: Any = verifier
    replaced.forward = MethodType(forward, verifier)


def _reaching(function: Any, **names: Any) -> FunctionType:
    """A copy of a function that finds other things by these names of its module. Raises AttributeError for unknown."""
    if missing := [name for name in names if name not in function.__globals__]:
        raise AttributeError(f"{function.__module__} no longer has {', '.join(missing)}: look at {__name__}.")
    names = {**function.__globals__, **names}
    copied = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    copied.__kwdefaults__ = function.__kwdefaults__
    return copied
