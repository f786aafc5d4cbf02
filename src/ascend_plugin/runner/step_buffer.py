"""Everything the host knows about a step, packed into one buffer and copied to the device once.

vLLM's runner copies a dozen small arrays a step and derives positions, lengths and slots from them on the device, in
integer arithmetic that not every chip can be trusted with (see docs/silicon.md). The host knows all of these, so they
are computed there with NumPy and sent together; only tokens sampled or drafted in the step before, which are still on
the device, are put in place there.

The device buffer never moves and a layout depends on the padded batch alone, so a captured graph finds each step's
values where it read those it was captured with. Block tables stay on the device and only rows that changed are sent
(see block_tables).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from math import prod

import numpy as np
import torch

from ascend_plugin.runner.block_tables import DeviceBlockTable

ALIGNMENT_BYTES = 64  # of each section; torch_npu's own allocations are aligned to 512, operators ask for 32
TORCH_DTYPES = {"int64": torch.int64, "int32": torch.int32, "bool": torch.bool}


@dataclass(frozen=True)
class Section:
    """Where one array lies in the packed buffer."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def end(self) -> int:
        return self.offset + prod(self.shape) * self.dtype.itemsize

    @classmethod
    def after(cls, end: int, shape: tuple[int, ...], dtype: np.dtype) -> Section:
        """The first aligned section that starts at `end` or later."""
        return cls(-(-end // ALIGNMENT_BYTES) * ALIGNMENT_BYTES, shape, dtype)


@dataclass(frozen=True)
class ModelShape:
    """What of a model decides which arrays its steps have."""

    table_widths: tuple[int | None, ...]  # of each KV cache group's block table; None: the group holds recurrent states
    position_rows: int = 0  # of M-RoPE's positions; 0: the model has plain ones
    drafts: int = 0  # at most, for each request and step


@dataclass(frozen=True)
class Layout:
    """The sections for a batch padded to `tokens` tokens and `requests` requests."""

    tokens: int
    requests: int
    sections: dict[str, Section] = field(hash=False, compare=False)  # they follow from the two numbers
    size_bytes: int = field(hash=False, compare=False)


def plan_layout(tokens: int, requests: int, model: ModelShape) -> Layout:
    """Lay the arrays of a step out one after another."""
    int64, int32, boolean = np.dtype(np.int64), np.dtype(np.int32), np.dtype(np.bool_)
    arrays: list[tuple[str, tuple[int, ...], np.dtype]] = [
        ("positions", (tokens,), int64),
        ("logits_indices", (requests * (model.drafts + 1),), int64),
        ("sampled_rows", (requests,), int64),  # rows of the last step's tokens ...
        ("sampled_targets", (requests,), int64),  # ... and where they go among this step's
        ("input_ids", (tokens,), int32),
        ("query_start_loc", (requests + 1,), int32),
        ("seq_lens", (requests,), int32),
        ("is_padding", (tokens,), boolean),
    ]
    if model.position_rows:
        arrays.append(("mrope_positions", (model.position_rows, tokens), int64))
    if model.drafts:
        drafted = (requests * model.drafts,)
        arrays += [
            ("draft_rows", drafted, int64),  # places of the last step's drafts, flattened ...
            ("draft_targets", drafted, int64),  # ... and where they go among this step's tokens
            ("draft_places", drafted, int64),  # where this step's drafts are among its tokens
            ("target_logits_indices", drafted, int64),
            ("bonus_logits_indices", (requests,), int64),
            ("cu_num_draft_tokens", (requests,), int32),
            ("cu_num_sampled_tokens", (requests,), int32),
            ("discard_request_mask", (requests,), boolean),
        ]
    for group, width in enumerate(model.table_widths):
        if width is None:
            arrays.append((f"states_read{group}", (requests,), int64))
            arrays.append((f"states_written{group}", (model.drafts + 1, requests), int64))
        else:
            arrays.append((f"slots{group}", (tokens,), int32))
    sections, end = {}, 0
    for name, shape, dtype in arrays:
        sections[name] = Section.after(end, shape, dtype)
        end = sections[name].end
    return Layout(tokens, requests, sections, end)


class StepBuffer:
    """The packed buffer on both sides.

    There is one buffer on the host: the runner does not fill it while a copy may still read it (see
    AscendModelRunner.synchronize_input_prep). max_tokens and max_requests bound every batch.
    """

    def __init__(self, max_tokens: int, max_requests: int, model: ModelShape, device: torch.device) -> None:
        self.model = model
        self.layout = lru_cache(maxsize=128)(lambda tokens, requests: plan_layout(tokens, requests, model))
        size = self.layout(max_tokens, max_requests).size_bytes
        self._device = torch.zeros(size, dtype=torch.uint8, device=device)
        self._host = torch.zeros(size, dtype=torch.uint8, pin_memory=device.type != "cpu")
        self.tables = {
            group: DeviceBlockTable(max_requests, width, device)
            for group, width in enumerate(model.table_widths)
            if width is not None
        }
        self._changes: list[tuple[DeviceBlockTable, tuple[slice, slice]]] = []
        self.host_arrays = lru_cache(maxsize=128)(self._arrays)
        self.on_device = lru_cache(maxsize=128)(self._views)

    def fill_table(self, group: int, blocks: np.ndarray, counts: np.ndarray) -> None:
        """Note what changed in a group's table; blocks [R, width], of which row i uses the first counts[i]."""
        table = self.tables[group]
        part = table.update(blocks, int(counts.max()))
        if part is not None:
            self._changes.append((table, part))

    def upload(self, layout: Layout) -> dict[str, torch.Tensor]:
        """Copy host_arrays(layout) and changes of tables; returns device views, whose addresses the layout decides."""
        self._device[: layout.size_bytes].copy_(self._host[: layout.size_bytes], non_blocking=True)
        for table, part in self._changes:
            table.upload(*part)
        self._changes.clear()
        return self.on_device(layout)

    def _arrays(self, layout: Layout) -> dict[str, np.ndarray]:
        """The host's side of each section, to be filled for the next upload; what is in it is unspecified."""
        host = self._host.numpy()
        return {
            name: host[section.offset : section.end].view(section.dtype).reshape(section.shape)
            for name, section in layout.sections.items()
        }

    def _views(self, layout: Layout) -> dict[str, torch.Tensor]:
        views = {
            name: self._device[section.offset : section.end].view(TORCH_DTYPES[section.dtype.name]).view(section.shape)
            for name, section in layout.sections.items()
        }
        return views | {f"block_table{group}": table.device[: layout.requests] for group, table in self.tables.items()}
