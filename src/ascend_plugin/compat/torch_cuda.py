"""The torch.cuda names that vLLM's V1 runner uses on every device point at torch.npu.

Reason: gpu_model_runner.py and parallel_state.py name torch.cuda.Stream, Event and stream() directly.
Upstream: vllm/v1/worker/xpu_model_runner.py does the same for XPU.
Held by: tests/upstream/test_patches.py, tests/tiny.
Exit: when the runner uses torch.Stream, torch.Event and torch.accelerator.
"""

from __future__ import annotations

from typing import Any

import torch


def apply() -> None:
    from vllm.utils import torch_utils

    from ascend_plugin.streams import Event, current_stream

    if torch.cuda.Stream is torch.npu.Stream:
        return

    def set_stream(stream: Any) -> None:
        torch_utils._current_stream_tls.value = stream  # what vllm.utils.torch_utils.current_stream() returns
        torch.npu.set_stream(stream)

    class StreamContext:
        """`with torch.cuda.stream(s)`, keeping vLLM's own idea of the current stream right."""

        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def __enter__(self) -> None:
            self.previous = current_stream()
            if self.stream is not None:
                set_stream(self.stream)

        def __exit__(self, *_: object) -> None:
            set_stream(self.previous)

    torch.cuda.Stream = torch.npu.Stream
    torch.cuda.Event = Event
    torch.cuda.stream = StreamContext
    torch.cuda.set_stream = set_stream
    torch.cuda.current_stream = current_stream
    torch.cuda.default_stream = torch.npu.default_stream
    torch.cuda.is_current_stream_capturing = torch.npu.is_current_stream_capturing
    torch.cuda.graph_pool_handle = torch.npu.graph_pool_handle
