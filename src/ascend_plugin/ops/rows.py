"""Writing whole rows of a table in the form that the chip is known to get right."""

from __future__ import annotations

import torch

from ascend_plugin import detection


def write_rows(table: torch.Tensor, places: torch.Tensor, rows: torch.Tensor) -> None:
    """table[places[i]] becomes rows[i]; table [N, ...], places [R] int64 (which of equal places wins is open)."""
    if detection.current_chip().forms.row_index_copy:
        table.index_copy_(0, places, rows)
    else:
        table[places] = rows


def write_first(out: torch.Tensor, values: torch.Tensor) -> None:
    """out[:len(values)] = values, as out's dtype: by index, unless that is all of `out` (docs/silicon.md)."""
    values = values.to(out.dtype)
    if len(values) == len(out):
        out.copy_(values)
    else:
        out.index_copy_(0, torch.arange(len(values), device=out.device), values)
