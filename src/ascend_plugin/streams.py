"""The current stream, asked for by device index.

torch.npu.current_stream() and Event.record() without an argument find the current device by probing every accelerator
that PyTorch knows, which reads environment variables and takes tens of microseconds, several times a decode step.
"""

from __future__ import annotations

import torch


def current_stream(device: torch.device | int | None = None) -> torch.npu.Stream:
    return torch.npu.current_stream(torch.npu.current_device() if device is None else device)


class Event(torch.npu.Event):
    """torch.npu.Event, recorded and awaited on the current stream without that probe."""

    def record(self, stream: torch.npu.Stream | None = None) -> None:
        super().record(stream or current_stream())

    def wait(self, stream: torch.npu.Stream | None = None) -> None:
        super().wait(stream or current_stream())
