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
    """out[:len(values)] = values, as out's dtype: by index, since a buffer may go on behind `out` (docs/silicon.md)."""
    out.index_copy_(0, torch.arange(len(values), device=out.device), values.to(out.dtype))


class WrittenByIndex(torch.Tensor):
    """A buffer of the device whose first elements upstream assigns: `buffer[:n] = values`, `buffer[:, :n] = values`.

    Upstream's assignment is a copy between buffers of the device, which on Ascend 310P overwrites what lies behind it
    unless its bytes are a multiple of 32 (docs/silicon.md, row 1): here each element is written to its place. What is
    read from the buffer are plain tensors.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # as torch says to
    places: torch.Tensor  # 0, 1, ... along the last dimension

    @classmethod
    def of(cls, buffer: torch.Tensor) -> WrittenByIndex:
        """The same memory, written by index."""
        written = buffer.as_subclass(cls)
        written.places = torch.arange(buffer.shape[-1], device=buffer.device)
        return written

    def __setitem__(self, place: object, values: object) -> None:
        last = place[-1] if isinstance(place, tuple) else place
        others = place[:-1] if isinstance(place, tuple) else ()
        begins = isinstance(last, slice) and last.start is None and last.step is None and last.stop is not None
        whole = all(each == slice(None) for each in others) and len(others) == self.dim() - 1
        if begins and whole and isinstance(values, torch.Tensor) and values.dtype == self.dtype:
            assert isinstance(last, slice)
            places = self.places[: last.stop]
            values = values.expand(*self.shape[:-1], len(places))
            # Row by row: index_copy_ into two dimensions is not known to work on 310P.
            for row, of_row in zip(self.view(-1, self.shape[-1]), values.reshape(-1, len(places)), strict=True):
                row.index_copy_(0, places, of_row)
        else:
            super().__setitem__(place, values)  # type: ignore[assignment,index]
