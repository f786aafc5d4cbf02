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
