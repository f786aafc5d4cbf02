"""The torch forms of vLLM's Triton kernels against loops that follow the kernels line by line."""

from __future__ import annotations

import torch

from ascend_plugin.kernels import rejection, slot_mapping, speculation

VOCABULARY = 11


def test_slot_mapping() -> None:
    starts = torch.tensor([0, 3, 4, 6], dtype=torch.int32)
    positions = torch.tensor([0, 1, 2, 130, 127, 128])
    table = torch.tensor([[5, 0], [7, 9], [2, 3]], dtype=torch.int32)
    slots = torch.full((8,), 99)
    slot_mapping.compute_slot_mapping(6, 8, starts, positions, table, 2, slots, 128)
    assert slots.tolist() == [640, 641, 642, 9 * 128 + 2, 2 * 128 + 127, 3 * 128, -1, -1]


def _random_batch(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([3, 0, 1, 2], dtype=torch.int32)
    drafts = torch.randint(0, VOCABULARY, (int(lengths.sum()),), generator=generator, dtype=torch.int32)
    return lengths.cumsum(0).to(torch.int32), drafts, generator


def _reference(cumulative, accept, token, bonus, rows, width) -> torch.Tensor:
    output = torch.full((len(cumulative), width + 1), -1, dtype=torch.int32)
    start = 0
    for request, end in enumerate(cumulative.tolist()):
        rejected = False
        if rows[request]:
            for position in range(end - start):
                if not rejected:
                    output[request, position] = token[start + position]
                    rejected = not accept[start + position]
            if not rejected:
                output[request, end - start] = bonus[request]
        start = end
    return output


def test_greedy_rejection_for_every_pattern_of_acceptance() -> None:
    cumulative, drafts, _ = _random_batch(0)
    bonus = torch.tensor([[20], [21], [22], [23]])
    rows = torch.tensor([True, True, True, False])
    for pattern in range(1 << len(drafts)):
        accept = torch.tensor([bool(pattern >> index & 1) for index in range(len(drafts))])
        target = torch.where(accept, drafts, drafts + 1).to(torch.int64)
        output = torch.full((4, 4), -1, dtype=torch.int32)
        rejection.rejection_greedy_sample(output, cumulative, drafts, target, bonus, rows, 3)
        assert torch.equal(output, _reference(cumulative, accept, target, bonus[:, 0], rows, 3)), pattern


def test_a_batch_in_which_no_request_has_a_draft_takes_the_bonus_tokens() -> None:
    output = torch.full((2, 1), -1, dtype=torch.int32)
    nothing = torch.empty(0, dtype=torch.int32)
    bonus = torch.tensor([[7], [9]], dtype=torch.int32)
    rejection.rejection_greedy_sample(output, torch.zeros(2, dtype=torch.int32), nothing, nothing, bonus, None, 0)
    assert output.tolist() == [[7], [9]]


def test_random_rejection_with_and_without_draft_probabilities() -> None:
    for seed in range(50):
        cumulative, drafts, generator = _random_batch(seed)
        target = torch.rand(len(drafts), VOCABULARY, generator=generator)
        draft = torch.rand(len(drafts), VOCABULARY, generator=generator)
        uniform = torch.rand(len(drafts), generator=generator, dtype=torch.float64)
        recovered = torch.arange(len(drafts), dtype=torch.int32) + 30
        bonus = torch.tensor([[20], [21], [22], [23]])
        greedy = torch.tensor([False, False, True, False])
        for probabilities in (draft, None):
            rows = torch.arange(len(drafts))
            divisor = torch.ones(len(drafts)) if probabilities is None else draft[rows, drafts]
            accept = target[rows, drafts] / divisor >= uniform.float()
            token = torch.where(accept, drafts, recovered)
            output = torch.full((4, 4), -1, dtype=torch.int32)
            rejection.rejection_random_sample(
                output, cumulative, drafts, probabilities, target, bonus, recovered, uniform, greedy, 3, VOCABULARY
            )
            assert torch.equal(output, _reference(cumulative, accept, token, bonus[:, 0], ~greedy, 3))


def test_padded_drafts_are_rejected() -> None:
    output = torch.full((1, 3), -1, dtype=torch.int32)
    probabilities = torch.ones(2, VOCABULARY)
    rejection.rejection_random_sample(
        output, torch.tensor([2], dtype=torch.int32), torch.tensor([-1, 4], dtype=torch.int32), None, probabilities,
        torch.tensor([[9]]), torch.tensor([5, 6], dtype=torch.int32), torch.zeros(2), torch.tensor([False]), 2, 11,
    )  # fmt: skip
    assert output.tolist() == [[5, -1, -1]]


def test_expand() -> None:
    output = torch.zeros(5)
    rejection.expand(output, torch.tensor([0.0, 7.0, 2.0]), torch.tensor([2, 2, 5], dtype=torch.int32), 0, 1)
    assert output.tolist() == [1, 1, 2, 2, 2]


def test_recovered_tokens_come_from_what_the_target_has_above_the_draft() -> None:
    cumulative, drafts, generator = _random_batch(3)
    target = torch.rand(len(drafts), VOCABULARY, generator=generator)
    draft = torch.rand(len(drafts), VOCABULARY, generator=generator)
    inverse = torch.rand(4, VOCABULARY, generator=generator)
    owner = [0, 0, 0, 2, 3, 3]
    output = torch.zeros(len(drafts), dtype=torch.int32)
    rejection.sample_recovered_tokens(output, cumulative, drafts, draft, target, inverse, VOCABULARY)
    assert output.tolist() == [int(((target[i] - draft[i]).clamp(0) * inverse[owner[i]]).argmax()) for i in range(6)]
    rejection.sample_recovered_tokens(output, cumulative, drafts, None, target, inverse, VOCABULARY)
    without = target.clone()
    without[torch.arange(6), drafts.long()] = 0
    assert output.tolist() == [int((without[i] * inverse[owner[i]]).argmax()) for i in range(6)]


def test_eagle_step() -> None:
    positions = torch.tensor([4, 127, 255])
    table = torch.tensor([[1, 2], [3, 4], [5, 6]], dtype=torch.int32)
    lengths = torch.tensor([5, 128, 256], dtype=torch.int32)
    clamped, slots = torch.zeros(3, dtype=torch.int64), torch.zeros(5, dtype=torch.int64)
    speculation.eagle_step_slot_mapping(positions, table, 2, lengths, clamped, slots, 128, 256, 2, -1, 3)
    assert clamped.tolist() == [5, 128, 0]
    assert slots.tolist() == [128 + 5, 4 * 128, -1, -1, -1]
    assert lengths.tolist() == [6, 129, 1]


def test_eagle_inputs() -> None:
    to_sample, rejected = torch.zeros(3, dtype=torch.int32), torch.zeros(3, dtype=torch.int32)
    speculation.eagle_prepare_inputs_padded(
        torch.tensor([2, 2, 5], dtype=torch.int32), torch.tensor([1, 1, 4], dtype=torch.int32),
        torch.tensor([0, 3, 4, 8], dtype=torch.int32), to_sample, rejected, 3,
    )  # fmt: skip
    assert rejected.tolist() == [2, 0, 0]
    assert to_sample.tolist() == [0, 3, 7]


def test_eagle_next_token() -> None:
    next_tokens, counts = torch.zeros(4, dtype=torch.int32), torch.zeros(4, dtype=torch.int32)
    sampled = torch.tensor([[3, 4, -1], [-1, -1, -1], [5, 6, 7], [8, 9, 1]], dtype=torch.int32)
    discard = torch.tensor([False, False, False, True])
    backup = torch.tensor([90, 91, 92, 93], dtype=torch.int32)
    speculation.eagle_prepare_next_token_padded(sampled, discard, backup, next_tokens, counts, VOCABULARY, 3, 4)
    assert next_tokens.tolist() == [4, 91, 7, 93]
    assert counts.tolist() == [2, 0, 3, 0]
