"""A gated delta net that was given drafts goes on as if it had never seen those that were refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ascend_facts import chips
from ascend_plugin import detection
from ascend_plugin.cache.recurrent_state import block_ends
from ascend_plugin.configuration import UnsupportedChoice, _check_speculation
from ascend_plugin.ops import gated_delta_rule as rule
from ascend_plugin.ops.gated_delta_metadata import AscendGdnMetadataBuilder
from ascend_plugin.ops.gated_delta_net import AscendGatedDeltaNet

KEY_HEADS, HEADS, WIDTH, KERNEL, DRAFTS, BLOCKS = 2, 4, 8, 4, 3, 40
CHANNELS = 2 * KEY_HEADS * WIDTH + HEADS * WIDTH


@pytest.fixture(autouse=True, params=["310P3", "910B3"])
def _forms_of_a_chip(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The layer computes on the CPU here, in the forms of each chip."""
    monkeypatch.setattr(detection, "current_chip", lambda: chips.find(request.param))


class Layer(AscendGatedDeltaNet):
    """The layer between its projections, with drawn weights and a cache of its own."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        generator = torch.Generator().manual_seed(0)
        self.tp_size, self.num_k_heads, self.num_v_heads, self.conv_kernel_size = 1, KEY_HEADS, HEADS, KERNEL
        self.head_k_dim = self.head_v_dim = WIDTH
        self.key_dim, self.value_dim = KEY_HEADS * WIDTH, HEADS * WIDTH
        self.A_log, self.dt_bias = torch.rand(2, HEADS, generator=generator)
        weight = torch.randn(CHANNELS, 1, KERNEL, generator=generator)
        self.conv1d = SimpleNamespace(weight=weight, bias=None)
        content = 4 * (CHANNELS * (KERNEL - 1) + HEADS * WIDTH * WIDTH)
        garbage = torch.randint(-9, 9, (BLOCKS, 1, 1, content + 64), dtype=torch.int8, generator=generator)
        self.bind_kv_cache(garbage)

    def get_state_dtype(self):
        return torch.float32, torch.float32

    def run(self, tokens: torch.Tensor, metadata: object) -> torch.Tensor:
        outputs = torch.zeros(len(tokens), HEADS, WIDTH)
        gates = rule.gates(tokens[:, CHANNELS:-HEADS], tokens[:, -HEADS:], self.A_log, self.dt_bias)
        self.mix_step((tokens[:, :CHANNELS], *gates), metadata, outputs)
        return outputs


class Builder(AscendGdnMetadataBuilder):
    def __init__(self) -> None:
        self.num_spec, self.use_spec_decode, self.use_full_cuda_graph = DRAFTS, True, False
        self.kv_cache_spec, self._device = None, torch.device("cpu")
        self._kernel = KERNEL
        self.vllm_config = SimpleNamespace(cache_config=SimpleNamespace(mamba_cache_mode="none"))
        self._read, self._write = torch.zeros(8, dtype=torch.int64), torch.zeros(DRAFTS + 1, 8, dtype=torch.int64)

    def plan(self, lengths: list[int], computed: list[int], accepted: list[int], drafts: list[int]) -> object:
        counts, before = torch.tensor(lengths, dtype=torch.int32), torch.tensor(computed, dtype=torch.int32)
        table = 1 + torch.arange(len(lengths) * (DRAFTS + 1), dtype=torch.int32).view(-1, DRAFTS + 1)
        common = SimpleNamespace(
            query_start_loc_cpu=torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
            block_table_tensor=table,
            seq_lens=before + counts,
            seq_lens_cpu_upper_bound=before + counts,
            num_actual_tokens=sum(lengths),
        )
        return self.build(0, common, torch.tensor(accepted), torch.tensor(drafts))


def answers(texts: list[torch.Tensor], shape: str, stale: bool = False) -> float:
    """Largest difference between a speculating layer's outputs and those of texts read whole, over what is kept."""
    layer, builder, rng = Layer(), Builder(), np.random.default_rng(0)
    noise = torch.Generator().manual_seed(1)
    expected = [_read_whole(text) for text in texts]
    done, accepted, worst = [0] * len(texts), [1] * len(texts), 0.0
    for step in range(8):
        lengths, drafts, right, tokens = [], [], [], []
        for text, start in zip(texts, done, strict=True):
            prefills = step == 0 or (shape == "joined" and text is texts[-1] and step == 3)
            count = 5 if prefills else DRAFTS + 1 if shape == "uniform" else int(rng.integers(1, DRAFTS + 2))
            kept = count if prefills else int(rng.integers(1, count + 1))
            lengths.append(count)
            drafts.append(-1 if prefills else count - 1)
            right.append(kept)
            tokens += [text[start : start + kept], torch.randn(count - kept, text.shape[1], generator=noise)]
        if step and all(draft < 0 for draft in drafts):
            continue
        if step == 0:
            drafts[0] = -1
            metadata = _all_prefill(builder, lengths)
        else:
            metadata = builder.plan(lengths, done, accepted, drafts)
        outputs = layer.run(torch.cat(tokens), metadata).split(lengths)
        for row, kept in enumerate(right):
            error = outputs[row][:kept] - expected[row][done[row] : done[row] + kept]
            worst = max(worst, float(error.abs().max()))
            done[row] += kept
            accepted[row] = (lengths[row] if stale else kept) if drafts[row] >= 0 else 1
    return worst


def _read_whole(text: torch.Tensor) -> torch.Tensor:
    return Layer().run(text, _all_prefill(Builder(), [len(text)]))


def _all_prefill(builder: Builder, lengths: list[int]) -> object:
    slots = 1 + torch.arange(len(lengths)) * (DRAFTS + 1)
    return SimpleNamespace(
        num_prefills=len(lengths),
        num_prefill_tokens=sum(lengths),
        num_decode_tokens=0,
        non_spec_state_indices_tensor=slots,
        prefill_state_indices=slots,
        prefill_has_initial_state=torch.zeros(len(lengths), dtype=torch.bool),
        chunk_indices=builder._plan_chunks(lengths),
    )


@pytest.fixture
def texts() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(48, CHANNELS + 2 * HEADS, generator=generator) for _ in range(3)]


@pytest.mark.parametrize("shape", ["uniform", "ragged", "joined"])
def test_refused_drafts_leave_nothing_behind(shape: str, texts: list[torch.Tensor]) -> None:
    assert answers(texts, shape) < 1e-4
    assert answers(texts, shape, stale=True) > 1e-2  # a state with refused drafts in it would be noticed


def test_a_full_block_is_kept_if_its_last_token_was_accepted() -> None:
    # Blocks of 8. In turn: ends inside a block; its last draft fills a block; its first of two drafts does, so that it
    # runs in the block behind it; prefill to the end of a block, whose state is in place; the token before its draft
    # ends a block.
    computed, scheduled = np.array([3, 13, 14, 0, 15]), np.array([3, 3, 3, 16, 2])
    drafts, column = np.array([2, 2, 2, 0, 1]), np.array([0, 1, 2, 1, 2])
    row, source, target, needed, in_place = block_ends(computed, scheduled, drafts, column, 8)
    assert row.tolist() == [1, 2, 4]
    assert source.tolist() == [1 + 2, 2 + 1, 2 + 0]
    assert target.tolist() == [1, 1, 1]
    assert needed.tolist() == [3, 2, 1]
    assert in_place.tolist() == [1, 0, 0]


@pytest.mark.parametrize(("drafts", "stages", "remedy"), [(3, 1, "num_speculative_tokens"), (1, 2, "pipeline")])
def test_what_recurrent_models_cannot_take_back_is_refused(drafts: int, stages: int, remedy: str) -> None:
    config = SimpleNamespace(
        speculative_config=SimpleNamespace(
            method="mtp",
            num_speculative_tokens=drafts,
            draft_model_config=None,
            rejection_sample_method="standard",
            draft_sample_method="greedy",
            parallel_drafting=False,
            use_heterogeneous_vocab=False,
        ),
        model_config=SimpleNamespace(is_hybrid=True),
        parallel_config=SimpleNamespace(pipeline_parallel_size=stages),
    )
    with pytest.raises(UnsupportedChoice, match=remedy):
        _check_speculation(config, detection.current_chip())
    config.model_config.is_hybrid = False
    _check_speculation(config, detection.current_chip())
