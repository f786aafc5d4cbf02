"""The integers of a step, for batches small enough to be worked out on paper."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ascend_plugin.attention.masks import COMPRESSED_SIZE, _striped, causal_pattern, effective_window
from ascend_plugin.attention.metadata import AscendMetadata, Phase, phase_of
from ascend_plugin.cache.kv_cache import accounted_share, split_pages, zero_blocks
from ascend_plugin.cache.recurrent_state import block_ends
from ascend_plugin.kernels import rejection, slot_mapping, speculation
from ascend_plugin.ops.formats import nz_from_nd
from ascend_plugin.ops.noise import ROWS, WIDTH, HostNoise
from ascend_plugin.ops.structured_output import arrange_rows, mask_logits
from ascend_plugin.quantization.dequantized import EXPANSIONS, _readable, count, whole_scale
from ascend_plugin.quantization.weight_only import pack, unpack
from ascend_plugin.runner import fill
from ascend_plugin.runner.accepted import AcceptedTokens
from ascend_plugin.runner.block_tables import DeviceBlockTable
from ascend_plugin.runner.step_buffer import ModelShape, Section, StepBuffer, plan_layout

CPU = torch.device("cpu")


def ints(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


# ------------------------------------------------------------------------------------------------------ the fill


def arrays(tokens: int, requests: int, **more: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Arrays in which every place holds 77, which no answer is."""
    shapes: dict[str, tuple[int, ...]] = {
        "positions": (tokens,), "input_ids": (tokens,), "is_padding": (tokens,), "query_start_loc": (requests + 1,),
        "seq_lens": (requests,), "logits_indices": (3 * requests,), "sampled_rows": (requests,),
        "sampled_targets": (requests,),
    } | more  # fmt: skip
    return {name: np.full(shape, 77, np.int64) for name, shape in shapes.items()}


def test_a_batch_of_two_requests_and_padding() -> None:
    found = arrays(6, 4)
    token_ids = np.array([[10, 11, 12, 13], [20, 21, 22, 23], [0, 0, 0, 0]])
    # The first has 3 tokens in the cache and brings one; the second brings its first two.
    owner, positions = fill.fill_batch(found, np.array([1, 2]), np.array([3, 0]), token_ids, padding_length=9)
    assert owner.tolist() == [0, 1, 1]
    assert positions.tolist() == [3, 0, 1]
    assert found["positions"].tolist() == [3, 0, 1, 0, 0, 0]
    assert found["input_ids"].tolist() == [13, 20, 21, 0, 0, 0]
    assert found["is_padding"].tolist() == [0, 0, 0, 1, 1, 1]
    assert found["query_start_loc"].tolist() == [0, 1, 3, 3, 3]
    assert found["seq_lens"].tolist() == [4, 2, 9, 9]
    assert found["logits_indices"].tolist() == [0, 2] + [0] * 10


def test_padding_has_a_length_of_one_unless_told() -> None:
    found = arrays(1, 2)
    fill.fill_batch(found, np.array([1]), np.array([0]), np.array([[5]]))
    assert found["seq_lens"].tolist() == [1, 1]


def test_slots_lie_in_the_block_of_their_position() -> None:
    slots = np.full(6, 77)
    table = np.array([[7, 3, 9], [1, 8, 2]])
    # Blocks of 4: positions 3 and 4 of the first request, 8 and 1 of the second.
    fill.fill_slots(slots, table, 4, np.array([0, 0, 1, 1]), np.array([3, 4, 8, 1]))
    assert slots.tolist() == [7 * 4 + 3, 3 * 4, 2 * 4, 1 * 4 + 1, -1, -1]


def test_states_are_read_where_accepted_and_written_behind_one_another() -> None:
    read, written = np.full(3, 77), np.full((3, 3), 77)
    table = np.array([[11, 12, 13, 14], [21, 22, 23, 24]])
    fill.fill_states(read, written, table, np.array([1, 2]), np.array([2, 1]))
    assert written.tolist() == [[12, 23, 0], [13, 24, 0], [14, 24, 0]], "columns end with the table"
    assert read.tolist() == [13, 23, 0], "the second of the first request's slots, the first of the other's"


def test_sampled_tokens_go_before_the_drafts_of_their_request() -> None:
    found = arrays(8, 3)
    ends = np.array([3, 5, 8])
    assert fill.fill_sampled(found, np.array([2, -1, 0]), ends, np.array([1, 0, 2])) == (2, False)
    assert found["sampled_rows"].tolist() == [2, 0, 77]
    assert found["sampled_targets"].tolist() == [1, 5, 77]
    assert fill.fill_sampled(found, np.array([0, 1, -1]), ends) == (2, True)
    assert found["sampled_targets"].tolist()[:2] == [2, 4]
    assert fill.fill_sampled(found, np.array([-1, -1, -1]), ends) == (0, True)
    assert fill.fill_sampled(found, np.array([0, 2, -1]), ends)[1] is False


def test_drafts_go_to_the_end_of_their_request() -> None:
    found = arrays(8, 3, draft_rows=(9,), draft_targets=(9,))
    # Three drafts a row on the device; requests 0 (two drafts) and 2 (one) were in rows 1 and 0; the second is new.
    assert fill.fill_drafted(found, np.array([1, -1, 0]), np.array([3, 5, 8]), np.array([2, 1, 1]), 3) == 3
    assert found["draft_rows"].tolist()[:4] == [3, 4, 0, 77]
    assert found["draft_targets"].tolist()[:4] == [1, 2, 7, 77]
    assert fill.fill_drafted(found, np.array([1]), np.array([3]), np.array([0]), 3) == 0


def test_each_draft_is_judged_by_the_token_before_it() -> None:
    names = ("draft_places", "target_logits_indices", "bonus_logits_indices", "cu_num_draft_tokens")
    found = arrays(9, 3, cu_num_sampled_tokens=(3,), **dict.fromkeys(names, (9,)))
    # Requests of 3, 2 and 4 tokens, the last 2, 0 and 1 of which are drafts.
    assert fill.fill_verification(found, np.array([3, 5, 9]), np.array([2, 0, 1])) == (6, 3)
    assert found["logits_indices"].tolist()[:7] == [0, 1, 2, 4, 7, 8, 77]
    assert found["draft_places"].tolist()[:4] == [1, 2, 8, 77]
    assert found["target_logits_indices"].tolist()[:4] == [0, 1, 4, 77]
    assert found["bonus_logits_indices"].tolist()[:4] == [2, 3, 5, 77]
    assert found["cu_num_sampled_tokens"].tolist() == [3, 4, 6]
    assert found["cu_num_draft_tokens"].tolist()[:3] == [2, 2, 3]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_counting_up(counts: list[int]) -> None:
    wanted = [index for count in counts for index in range(count)]
    assert fill._count_up(np.array(counts)).tolist() == wanted


# ---------------------------------------------------------------------------------------------------- the layout


def test_sections_start_at_multiples_of_64_bytes() -> None:
    int32 = np.dtype(np.int32)
    assert Section.after(0, (3,), int32) == Section(0, (3,), int32)
    assert Section.after(1, (3,), int32).offset == 64
    assert Section.after(64, (3,), int32).offset == 64
    assert Section.after(65, (3,), int32).offset == 128
    assert Section(64, (3, 5), np.dtype(np.int64)).end == 64 + 120


def places(layout: Any) -> dict[str, tuple[int, tuple[int, ...], str]]:
    return {name: (one.offset, one.shape, one.dtype.name) for name, one in layout.sections.items()}


def test_a_plain_layout() -> None:
    layout = plan_layout(10, 3, ModelShape((7,)))
    assert places(layout) == {
        "positions": (0, (10,), "int64"),  # 80 bytes
        "logits_indices": (128, (3,), "int64"),
        "sampled_rows": (192, (3,), "int64"),
        "sampled_targets": (256, (3,), "int64"),
        "input_ids": (320, (10,), "int32"),
        "query_start_loc": (384, (4,), "int32"),
        "seq_lens": (448, (3,), "int32"),
        "is_padding": (512, (10,), "bool"),
        "slots0": (576, (10,), "int32"),
    }
    assert (layout.tokens, layout.requests, layout.size_bytes) == (10, 3, 616)


def test_a_layout_of_everything() -> None:
    found = {name: rest for name, (_, *rest) in places(plan_layout(10, 3, ModelShape((7, None), 3, 2))).items()}
    assert found["mrope_positions"] == [(3, 10), "int64"]
    for name in ("draft_rows", "draft_targets", "draft_places", "target_logits_indices"):
        assert found[name] == [(6,), "int64"]
    assert found["logits_indices"] == [(9,), "int64"], "each request's drafts and one more"
    assert found["bonus_logits_indices"] == [(3,), "int64"]
    assert found["cu_num_draft_tokens"] == found["cu_num_sampled_tokens"] == [(3,), "int32"]
    assert found["discard_request_mask"] == [(3,), "bool"]
    assert found["states_read1"] == [(3,), "int64"] and found["states_written1"] == [(3, 3), "int64"]
    assert "slots1" not in found and "states_read0" not in found and found["slots0"] == [(10,), "int32"]


@given(st.integers(1, 300), st.integers(1, 60), st.integers(0, 3), st.integers(0, 4))
def test_sections_never_overlap(tokens: int, requests: int, rows: int, drafts: int) -> None:
    layout = plan_layout(tokens, requests, ModelShape((5, None, 9), rows, drafts))
    end = 0
    for section in layout.sections.values():
        assert section.offset >= end and section.offset % 64 == 0
        end = section.end
    assert layout.size_bytes == end


def test_what_is_filled_on_the_host_is_what_the_device_gets() -> None:
    buffer = StepBuffer(8, 4, ModelShape((5, None)), CPU)
    assert set(buffer.tables) == {0}
    layout = buffer.layout(6, 3)
    host = buffer.host_arrays(layout)
    for number, name in enumerate(host):
        host[name][...] = number % 2
    buffer.fill_table(0, np.arange(10).reshape(2, 5), np.array([2, 4]))
    views = buffer.upload(layout)
    for number, name in enumerate(host):
        assert views[name].eq(number % 2).all() and tuple(views[name].shape) == host[name].shape
    assert views["block_table0"].tolist() == [[0, 1, 2, 3, 0], [5, 6, 7, 8, 0], [0, 0, 0, 0, 0]]
    assert views is buffer.on_device(layout)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({}, None),
        ({(1, 2): 9}, (slice(1, 2), slice(2, 3))),
        ({(1, 0): 9, (1, 2): 9}, (slice(1, 2), slice(0, 3))),
        ({(0, 1): 99, (2, 1): 99}, (slice(0, 3), slice(None))),  # several rows go whole
        ({(2, 3): 9}, None),  # beyond what is used
    ],
)
def test_parts_of_tables_that_are_sent(changes: dict[tuple[int, int], int], part: Any) -> None:
    table = DeviceBlockTable(4, 4, CPU)
    before = np.arange(12).reshape(3, 4)
    table.update(before, 4)
    table.upload(slice(0, 4), slice(None))
    after = before.copy()
    for place, block in changes.items():
        after[place] = block
    assert table.update(after, 3) == part
    if part is not None:
        table.upload(*part)
        assert table.device[:3, :3].tolist() == after[:, :3].tolist()


# -------------------------------------------------------------------------------------------- kernels on tensors


def test_slots_on_the_device() -> None:
    out = torch.full((7,), 55, dtype=torch.int64)
    table = torch.tensor([[7, 3], [1, 8], [0, 0]], dtype=torch.int32)
    slot_mapping.compute_slot_mapping(4, 6, ints(0, 1, 4), torch.tensor([5, 0, 3, 4, 99]), table, 2, out, 4, pad_id=-9)
    assert out.tolist() == [3 * 4 + 1, 4, 7, 8 * 4, -9, -9, 55]
    assert slot_mapping.request_of_token(ints(0, 1, 1, 4), 4).tolist() == [0, 2, 2, 2]
    with pytest.raises(NotImplementedError):
        slot_mapping.compute_slot_mapping(1, 1, ints(0, 1), torch.tensor([0]), table, 2, out, 4, cp_world_size=2)


def test_a_drafted_token_takes_the_next_slot() -> None:
    lengths, clamped = ints(4, 8, 9, 5), torch.full((4,), 55, dtype=torch.int64)
    slots = torch.full((5,), 55, dtype=torch.int64)
    table = torch.tensor([[7, 3], [1, 8], [2, 4]], dtype=torch.int32)
    # Blocks of 4, at most 8 tokens: from 3 to 4, from 7 beyond the end, from 0 to 1.
    speculation.eagle_step_slot_mapping(
        torch.tensor([3, 7, 0]), table, 2, lengths, clamped, slots, 4, 8, 2, -1, 3
    )  # fmt: skip
    assert slots.tolist() == [3 * 4, -1, 2 * 4 + 1, -1, -1]
    assert clamped.tolist() == [4, 0, 1, 55]
    assert lengths.tolist() == [5, 1, 8, 5], "one more, at most 8; 1 of what is too long; the rest untouched"


def test_the_last_token_that_was_accepted() -> None:
    places, rejected = torch.full((4,), 55, dtype=torch.int32), torch.full((4,), 55, dtype=torch.int32)
    # Drafts 2, 0 and 3 of requests of 3, 1 and 4 tokens; 1, 1 and 4 tokens were sampled.
    speculation.eagle_prepare_inputs_padded(ints(2, 2, 5), ints(1, 1, 4), ints(0, 3, 4, 8), places, rejected, 3)
    assert rejected.tolist() == [2, 0, 0, 55]
    assert places.tolist() == [0, 3, 7, 55]


def test_the_next_token_to_draft_from() -> None:
    following, counts = torch.full((5,), 55, dtype=torch.int32), torch.full((5,), 55, dtype=torch.int32)
    sampled = torch.tensor([[5, 6, -1], [7, -1, -1], [-1, -1, -1], [8, 99, -1]])
    discard = torch.tensor([False, True, False, False])
    speculation.eagle_prepare_next_token_padded(sampled, discard, ints(1, 2, 3, 4), following, counts, 50, 3, 4)
    assert following.tolist() == [6, 2, 3, 8, 55]
    assert counts.tolist() == [2, 0, 0, 1, 55]


def test_grids_of_drafts() -> None:
    index, exists = rejection._draft_grid(ints(2, 2, 3), 3, 3)
    assert exists.tolist() == [[True, True, False], [False] * 3, [True, False, False]]
    assert index.view(3, 3).tolist() == [[0, 1, 2], [2, 2, 2], [2, 2, 2]]
    assert rejection._previous(ints(2, 5, 9)).tolist() == [0, 2, 5]
    assert rejection._request_of_token(ints(2, 2, 3), 4).tolist() == [0, 0, 2, 2]


def test_probabilities_decide_at_their_border() -> None:
    def sample(target: float, draft: float, uniform: float) -> list[int]:
        out = torch.full((1, 2), -1, dtype=torch.int32)
        rejection.rejection_random_sample(
            out, ints(1), ints(1), torch.tensor([[0.0, draft]]), torch.tensor([[0.0, target]]), ints(7), ints(5),
            torch.tensor([uniform]), torch.tensor([False]), 1, 2,
        )  # fmt: skip
        return out[0].tolist()

    assert sample(0.25, 0.5, 0.5) == [1, 7], "a quarter is half of a half: accepted, and the bonus follows"
    assert sample(0.25, 0.5, 0.51) == [5, -1], "replaced"
    assert sample(0.5, 0.25, 0.999) == [1, 7], "likelier than the draft: always"
    assert sample(0.5, 0.0, 0.1) == [5, -1], "a draft that its model would never have made"


def test_recovered_tokens() -> None:
    out = torch.zeros(2, dtype=torch.int32)
    target = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    draft = torch.tensor([[0.6, 0.2, 0.2], [0.0, 0.2, 0.8]])
    ones = torch.ones(2, 3)
    rejection.sample_recovered_tokens(out, ints(1, 2), ints(0, 2), draft, target, ones, 3)
    assert out.tolist() == [1, 0], "only what the target has above the draft"
    rejection.sample_recovered_tokens(out, ints(1, 2), ints(0, 2), None, target, ones, 3)
    assert out.tolist() == [1, 1], "anything but the draft"
    # The noise is that of the request: both tokens here are of the second.
    noise = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 9.0]])
    rejection.sample_recovered_tokens(out, ints(0, 2), ints(0, 1), None, target, noise, 3)
    assert out.tolist() == [2, 2]


# --------------------------------------------------------------------------------------------- attention, caches


def test_causal_masks() -> None:
    mask = causal_pattern(-7.0)
    assert mask.shape == (COMPRESSED_SIZE, COMPRESSED_SIZE) and mask.dtype == torch.float16
    assert mask[5, :8].tolist() == [0.0] * 6 + [-7.0] * 2
    assert mask[2047].eq(0).all() and mask[0, 1:].eq(-7.0).all()


def test_windows_that_matter() -> None:
    spec = SimpleNamespace(sliding_window=16)
    assert effective_window(spec, 17) == 16
    assert effective_window(spec, 16) is None and effective_window(spec, 15) is None
    assert effective_window(SimpleNamespace(sliding_window=None), 99) is None and effective_window(object(), 99) is None


def test_stripes_of_a_window() -> None:
    mask = _striped(ints(0, 5, 20), 3, 2)
    assert mask.shape == (1, 2, 3, 16)
    rows = mask[0].transpose(0, 1).flatten(1)
    assert [row.eq(0).nonzero().flatten().tolist() for row in rows] == [[0], [3, 4, 5], [18, 19, 20]]
    assert set(mask.unique().tolist()) == {-10000.0, 0.0}


def metadata(phase: Phase, tokens: int, queries: tuple[int, ...], lengths: tuple[int, ...]) -> AscendMetadata:
    empty = torch.zeros(1)
    return AscendMetadata(phase, tokens, ints(*queries), ints(*lengths), empty, empty, empty, True)


def test_phases() -> None:
    assert phase_of(1, ints(1, 1), ints(1, 1)) is Phase.DECODE
    assert phase_of(3, ints(3, 2, 0), ints(3, 2, 1)) is Phase.PREFILL, "padding does not count"
    assert phase_of(3, ints(3, 2), ints(3, 4)) is Phase.MIXED


def test_prompts_that_start_in_a_step() -> None:
    """Two decode rows around two whole prompts, a chunk's rest, one more prompt, and a row of padding."""
    mixed = metadata(Phase.MIXED, 16, (1, 4, 2, 1, 3, 5, 0), (7, 4, 2, 9, 8, 5, 0))
    found = [(tokens, prompts.query_lens.tolist(), prompts.num_tokens) for tokens, prompts in mixed.whole_prompts]
    assert found == [(slice(1, 7), [4, 2], 6), (slice(11, 16), [5], 5)]
    first = mixed.whole_prompts[0][1]
    assert first.phase is Phase.PREFILL
    assert first.cumulative_query_lens == [4, 6] and first.kv_lens == [4, 2]
    assert metadata(Phase.DECODE, 2, (1, 1), (1, 6)).whole_prompts == [], "a graph's batch is not looked into"


def test_rows_of_padding_hold_the_tokens_of_padding() -> None:
    decode = metadata(Phase.DECODE, 4, (1, 1, 0, 0), (5, 9, 0, 0))
    assert decode.cumulative_query_lens == [1, 2, 3, 4]
    assert decode.kv_lens == [5, 9, 1, 1]
    assert decode.uniform_spans == [(slice(0, 4), slice(0, 4))]
    drafted = metadata(Phase.MIXED, 8, (2, 2, 0, 0), (5, 9, 1, 1))  # a graph of two tokens a row
    assert drafted.cumulative_query_lens == [2, 4, 6, 8]
    assert drafted.kv_lens == [5, 9, 2, 2]
    assert drafted.uniform_spans == [(slice(0, 4), slice(0, 8))]
    mixed = metadata(Phase.MIXED, 8, (3, 1, 0, 0), (3, 9, 0, 0))  # four tokens of padding, in the last row
    assert mixed.cumulative_query_lens == [3, 4, 4, 8]
    assert mixed.kv_lens == [3, 9, 1, 4]
    assert mixed.uniform_spans == [
        (slice(0, 1), slice(0, 3)), (slice(1, 2), slice(3, 4)), (slice(3, 4), slice(4, 8)),
    ]  # fmt: skip
    whole = metadata(Phase.PREFILL, 7, (3, 3, 1), (3, 3, 1))
    assert whole.cumulative_query_lens == [3, 6, 7]
    assert whole.uniform_spans == [(slice(0, 2), slice(0, 6)), (slice(2, 3), slice(6, 7))]


def test_pages_are_split_into_halves() -> None:
    blocks, heads, tokens, width = 3, 2, 4, 6
    cache = torch.arange(blocks * heads * tokens * width).view(blocks, heads, tokens, width)
    keys, values = split_pages(cache)
    assert keys.shape == values.shape == (5, 4, 2, 3)
    # A page has 48 values: keys of block b from 48 b on, its values 24 later.
    for block in range(blocks):
        assert keys[2 * block].flatten().tolist() == list(range(48 * block, 48 * block + 24))
        assert values[2 * block].flatten().tolist() == list(range(48 * block + 24, 48 * block + 48))
    offset = torch.arange(7 + blocks * 48)[7:].view(blocks, heads, tokens, width)
    assert split_pages(offset)[0][0, 0, 0, 0] == 7 and split_pages(offset)[1][0, 0, 0, 0] == 31
    with pytest.raises(NotImplementedError, match="padding"):
        split_pages(torch.zeros(3, 60).as_strided((3, 2, 4, 6), (60, 24, 6, 1)))


def test_blocks_are_zeroed_in_every_layer_once() -> None:
    pair = torch.ones(6, 2), torch.ones(6, 2)  # two kernel blocks for each of three
    state = torch.ones(3, 2)
    zero_blocks([pair, state, pair], [0, 2], 3)
    for tensor in pair:
        assert tensor[:, 0].tolist() == [0, 0, 1, 1, 0, 0]
    assert state[:, 0].tolist() == [0, 1, 0]
    zero_blocks([state], [], 3)
    assert state[1].tolist() == [1, 1]


def test_the_share_that_is_accounted_for() -> None:
    from vllm.v1.kv_cache_interface import FullAttentionSpec, MambaSpec

    attention = FullAttentionSpec(block_size=16, num_kv_heads=1, head_size=16, dtype=torch.float16)
    state = MambaSpec(block_size=16, shapes=((2,),), dtypes=(torch.float16,))
    assert accounted_share([]) == 1.0
    assert accounted_share([attention, attention]) == 1.0
    assert accounted_share([state]) == 1.0
    assert accounted_share([attention, state, attention]) == 0.5


def test_states_at_the_ends_of_blocks() -> None:
    # Blocks of 4. A: 6 + 3 tokens, 2 of them drafts: certain to 7, at most 9; 8 is a boundary, one beyond what is
    # certain: two tokens have to be accepted; the state is in the column after its own, 1. B: ends at 7, before 8.
    # C: 5 + 3 without drafts: ends at 8 in column 1 itself: nothing. D: as C, with its state in column 2.
    found = block_ends(
        np.array([6, 4, 5, 5]), np.array([3, 3, 3, 3]), np.array([2, 1, 0, 0]), np.array([1, 1, 1, 2]), 4
    )
    assert found.tolist() == [[0, 3], [2, 2], [1, 1], [2, 1], [1, 0]]


# ------------------------------------------------------------------------------------------ weights and formats


def test_stripes_of_sixteen_columns() -> None:
    matrix = torch.arange(16 * 48).view(16, 48)
    laid_out = nz_from_nd(matrix)
    assert laid_out.shape == (1, 3, 16, 16) and laid_out.is_contiguous()
    assert laid_out[0, 1, 2].tolist() == list(range(2 * 48 + 16, 2 * 48 + 32))


def test_eight_weights_in_an_integer() -> None:
    packed = pack(torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7], [-8, -1, 0, 0, 0, 0, 0, -8]], dtype=torch.int8))
    assert packed.tolist() == [[0x76543210], [0x000000F8 - (8 << 28)]]
    unsigned = torch.randint(0, 16, (3, 16, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    as_int32 = pack(unsigned.transpose(1, 2).to(torch.int8)).transpose(1, 2)
    assert unpack(as_int32, 1).equal(unsigned)
    assert unpack(torch.tensor([[0x76543210]], dtype=torch.int32), 1).tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]
    assert unpack(torch.tensor([[0x76543210]], dtype=torch.int32), 0).flatten().tolist() == list(range(8))


def test_scales_of_blocks() -> None:
    scale = torch.tensor([[1, 2], [3, 4]])
    assert whole_scale(scale, (2, 3), (3, 5)).tolist() == [[1, 1, 1, 2, 2], [1, 1, 1, 2, 2], [3, 3, 3, 4, 4]]


def test_what_expanded_weights_take() -> None:
    EXPANSIONS.clear()
    try:
        count("fp8", torch.float16, 1000)
        count("fp8", torch.float16, 10)
        count("int4", torch.int8, 1001)
        fp8, int4 = EXPANSIONS["fp8", "float16"], EXPANSIONS["int4", "int8"]
        assert (fp8.matrices, fp8.stored_bytes, fp8.held_bytes) == (2, 1010, 2020)
        assert (int4.matrices, int4.stored_bytes, int4.held_bytes) == (1, 500, 1001)
    finally:
        EXPANSIONS.clear()
    assert _readable(1 << 30) == "1.00 GiB" and _readable((1 << 30) - 1) == "1024.0 MiB"
    assert _readable(3 << 19) == "1.5 MiB"


# -------------------------------------------------------------------------------------------- sampling, grammars


def test_rows_of_noise() -> None:
    rows = HostNoise(3).rows(2, 5, {})
    assert rows.shape == (2, 5) and rows.dtype == np.int32
    assert (rows >= 0).all() and (rows < ROWS).all()
    steps = np.diff(rows.astype(np.int64), axis=1) % ROWS
    assert (steps == steps[:, :1]).all() and (steps % 2 == 1).all(), "an odd stride meets every row"
    again = HostNoise(3).rows(2, 5, {})
    assert (rows == again).all() and not (rows[0] == rows[1]).all()


def test_seeded_rows_are_their_own_and_count_their_draws() -> None:
    def seeded() -> torch.Generator:
        generator = torch.Generator()
        generator.manual_seed(7)
        return Offset(generator)  # type: ignore[return-value]

    class Offset:
        """A CPU generator with an offset, as a device's has one."""

        def __init__(self, generator: torch.Generator) -> None:
            self.seed, self.offset = generator.initial_seed(), 0

        def get_offset(self) -> int:
            return self.offset

        def set_offset(self, offset: int) -> None:
            self.offset = offset

        def initial_seed(self) -> int:
            return self.seed

    one, other = seeded(), seeded()
    first = HostNoise(1).rows(3, 4, {2: one})[2]
    assert (first == HostNoise(99).rows(1, 4, {0: other})[0]).all(), "neither the batch nor the engine's seed matter"
    assert one.get_offset() == 4
    assert not (HostNoise(1).rows(3, 4, {2: one})[2] == first).all()
    drawn = HostNoise(5).uniforms([2, 0, 3], {0: seeded(), 1: seeded(), 2: seeded()})
    assert drawn.shape == (5,) and drawn.dtype == np.float32
    assert (drawn[:2] == drawn[2:4]).all(), "each seed begins anew, at its own place"
    assert ((drawn > 0) & (drawn < 1)).all()
    idle = seeded()
    HostNoise(5).uniforms([0], {0: idle})
    assert idle.get_offset() == 0


def test_width_and_rows_of_the_table() -> None:
    from ascend_plugin.ops.noise import _noise

    table = _noise()
    assert table.shape == (ROWS, WIDTH) and table.dtype == np.float32
    # Each column holds one number of every part of the distribution: the share below the median is a half exactly.
    median = -np.log(np.log(2.0))
    assert (np.abs((table < median).sum(axis=0) - ROWS // 2) <= 1).all()


def test_masks_follow_the_order_of_the_batch() -> None:
    bitmask = np.array([[1], [2], [3], [4]], dtype=np.int32)  # blocks of two: "a", then "b"
    arranged = arrange_rows(bitmask, ["a", "b"], ["x", "b", "a"], {"x": [9], "a": [8]}, 6)
    assert arranged[:, 0].tolist() == [-1, -1, 3, 1, 2, -1], "x is free and has a draft; b has none, a has one"


def test_bits_of_tokens() -> None:
    logits = torch.zeros(1, 40)
    mask_logits(logits, torch.tensor([[-(1 << 31) + 5]], dtype=torch.int32))
    assert (logits[0] == 0).nonzero().flatten().tolist() == [0, 2, 31, *range(32, 40)], "what has no bit is left"


def test_accepted_tokens_are_counted_up_to_the_first_refusal() -> None:
    counts = AcceptedTokens(3, 3, CPU)
    counts.note(torch.tensor([[5, 6, -1], [-1, -1, -1], [1, 2, 3]]), ["a", "b", "c"], None)
    counts.collect()
    assert [counts.of(name) for name in "abcd"] == [2, 1, 3, 1], "one at least; one of a request that is not known"
    assert counts.by_row() == [2, 0, 3]
