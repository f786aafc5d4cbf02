"""The current stream, asked for by device index.

torch.npu.current_stream() and Event.record() without an argument find the current device by probing every accelerator
that PyTorch knows, which reads environment variables and takes tens of microseconds, several times a decode step.
"""

from __future__ import annotations

import torch
import torch_npu


def current_stream(device: torch.device | int | None = None) -> torch_npu.npu.Stream:
    return torch_npu.npu.current_stream(torch_npu.npu.current_device() if device is None else device)


class Event(torch_npu.npu.Event):
    """torch.npu.Event, recorded and awaited on the current stream without that probe."""

    def record(self, stream: torch_npu.npu.Stream | None = None) -> None:
        super().record(stream or current_stream())

    def wait(self, stream: torch_npu.npu.Stream | None = None) -> None:
        super().wait(stream or current_stream())
