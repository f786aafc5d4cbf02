"""Everything the host knows about a step, packed into one buffer and copied to the device once.

vLLM's runner copies a dozen small arrays a step and derives positions, lengths and slots from them on the device.
Without speculation the host knows all of these, so they are computed here with NumPy and sent together; only tokens
sampled in the step before, which are still on the device, are put in place there.

The device buffer never moves and a layout depends on the padded batch alone, so a captured graph finds each step's
values where it read those it was captured with. Block tables stay on the device and only what changed in them is sent
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
class Layout:
    """The sections for a batch padded to `tokens` tokens and `requests` requests."""

    tokens: int
    requests: int
    sections: dict[str, Section] = field(hash=False, compare=False)  # they follow from the two numbers
    size_bytes: int = field(hash=False, compare=False)


def plan_layout(tokens: int, requests: int, groups: int) -> Layout:
    """Lay the arrays of a step out one after another, for a model with that many KV cache groups."""
    int64, int32, boolean = np.dtype(np.int64), np.dtype(np.int32), np.dtype(np.bool_)
    arrays: list[tuple[str, tuple[int, ...], np.dtype]] = [
        ("positions", (tokens,), int64),
        ("logits_indices", (requests,), int64),
        ("sampled_rows", (requests,), int64),  # rows of the last step's tokens ...
        ("sampled_targets", (requests,), int64),  # ... and where they go among this step's
        ("input_ids", (tokens,), int32),
        ("query_start_loc", (requests + 1,), int32),
        ("seq_lens", (requests,), int32),
        ("is_padding", (tokens,), boolean),
    ]
    arrays += [(f"slots{group}", (tokens,), int32) for group in range(groups)]
    sections, end = {}, 0
    for name, shape, dtype in arrays:
        sections[name] = Section.after(end, shape, dtype)
        end = sections[name].end
    return Layout(tokens, requests, sections, end)


class StepInputs:
    """The packed buffer on both sides, and the numbers that go into it.

    There is one buffer on the host: the runner does not fill it while a copy may still read it (see
    AscendModelRunner.synchronize_input_prep). max_tokens and max_requests bound every batch; table_widths has the
    block-table width of each KV cache group.
    """

    def __init__(self, max_tokens: int, max_requests: int, table_widths: tuple[int, ...], device: torch.device) -> None:
        self.layout = lru_cache(maxsize=128)(lambda tokens, requests: plan_layout(tokens, requests, len(table_widths)))
        size = self.layout(max_tokens, max_requests).size_bytes
        for width in table_widths:  # at most, everything in a table changes
            size = Section.after(size, (max_requests, width), np.dtype(np.int32)).end
        self._device = torch.zeros(size, dtype=torch.uint8, device=device)
        self._host = torch.zeros(size, dtype=torch.uint8, pin_memory=device.type != "cpu")
        self._tables = [DeviceBlockTable(max_requests, width, device) for width in table_widths]
        self._changes: list[tuple[DeviceBlockTable, tuple[slice, slice], Section]] = []
        self.host_arrays = lru_cache(maxsize=128)(self._arrays)
        self.on_device = lru_cache(maxsize=128)(self._views)

    def fill_table(self, layout: Layout, group: int, blocks: np.ndarray, counts: np.ndarray) -> None:
        """Note what changed in a group's table; blocks [R, width], of which row i uses the first counts[i]."""
        table = self._tables[group]
        area = table.update(blocks, int(counts.max()))
        if area is None:
            return
        end = self._changes[-1][-1].end if self._changes else layout.size_bytes
        changed = table.host[area]
        section = Section.after(end, changed.shape, changed.dtype)
        self._host_array(section)[:] = changed
        self._changes.append((table, area, section))

    def upload(self, layout: Layout) -> dict[str, torch.Tensor]:
        """Copy host_arrays(layout) and changes of tables; returns device views, whose addresses the layout decides."""
        size = self._changes[-1][-1].end if self._changes else layout.size_bytes
        self._device[:size].copy_(self._host[:size], non_blocking=True)
        for table, area, section in self._changes:
            table.device[area].copy_(self._device_view(section))
        self._changes.clear()
        return self.on_device(layout)

    def _host_array(self, section: Section) -> np.ndarray:
        return self._host.numpy()[section.offset : section.end].view(section.dtype).reshape(section.shape)

    def _device_view(self, section: Section) -> torch.Tensor:
        return self._device[section.offset : section.end].view(TORCH_DTYPES[section.dtype.name]).view(section.shape)

    def _arrays(self, layout: Layout) -> dict[str, np.ndarray]:
        """The host's side of each section, to be filled for the next upload; what is in it is unspecified."""
        return {name: self._host_array(section) for name, section in layout.sections.items()}

    def _views(self, layout: Layout) -> dict[str, torch.Tensor]:
        views = {name: self._device_view(section) for name, section in layout.sections.items()}
        return views | {
            f"block_table{group}": table.device[: layout.requests] for group, table in enumerate(self._tables)
        }


def fill_batch(
    arrays: dict[str, np.ndarray],
    num_scheduled: np.ndarray,  # [R] tokens of each request in this step
    num_computed: np.ndarray,  # [R] tokens already in the cache
    token_ids: np.ndarray,  # [>= R, max length] every request's tokens
) -> tuple[np.ndarray, np.ndarray]:
    """Fill tokens, positions, starts and lengths of a batch; returns (request of each token, its position).

    The rest is padding: token 0 at position 0, empty queries, length 0.
    """
    requests, tokens = len(num_scheduled), int(num_scheduled.sum())
    ends = np.cumsum(num_scheduled)
    owner = np.repeat(np.arange(requests), num_scheduled)
    positions = np.arange(tokens) + (num_computed - ends + num_scheduled)[owner]
    for name, values in (("positions", positions), ("input_ids", token_ids[owner, positions])):
        arrays[name][:tokens] = values
        arrays[name][tokens:] = 0
    arrays["is_padding"][:tokens] = False
    arrays["is_padding"][tokens:] = True
    starts = arrays["query_start_loc"]
    starts[0] = 0
    starts[1 : requests + 1] = ends
    starts[requests + 1 :] = tokens
    arrays["seq_lens"][:requests] = num_computed + num_scheduled
    arrays["seq_lens"][requests:] = 0
    arrays["logits_indices"][:requests] = ends - 1
    arrays["logits_indices"][requests:] = 0
    return owner, positions


def fill_slots(
    slots: np.ndarray,  # [T padded]
    block_table: np.ndarray,  # [>= R, width] blocks of each request
    block_size: int,
    owner: np.ndarray,
    positions: np.ndarray,
) -> None:
    """Fill one KV cache group's slots. Padding: slot -1, which is not written."""
    tokens = len(positions)
    slots[:tokens] = block_table[owner, positions // block_size] * block_size + positions % block_size
    slots[tokens:] = -1


def fill_sampled(arrays: dict[str, np.ndarray], previous_rows: np.ndarray, ends: np.ndarray) -> tuple[int, bool]:
    """Note which of the last step's sampled tokens go where; returns (how many, whether row i simply goes to token i).

    previous_rows [R] has each request's row in the last step, or -1; ends [R] the end of its tokens in this one.
    """
    rows = np.flatnonzero(previous_rows >= 0)
    sources, targets = previous_rows[rows], ends[rows] - 1
    count = len(rows)
    arrays["sampled_rows"][:count] = sources
    arrays["sampled_targets"][:count] = targets
    in_order = np.arange(count)
    return count, bool(np.array_equal(sources, in_order) and np.array_equal(targets, in_order))
