"""The torch.cuda names that vLLM's V1 runner uses on every device point at torch.npu.

Reason: gpu_model_runner.py and parallel_state.py name torch.cuda.Stream, Event and stream() directly.
Upstream: vllm/v1/worker/xpu_model_runner.py does the same for XPU.
Held by: tests/upstream/test_patches.py, tests/tiny.
Exit: when the runner uses torch.Stream, torch.Event and torch.accelerator.
"""

from __future__ import annotations

from typing import Any

import torch
import torch_npu


def apply() -> None:
    from vllm.utils import torch_utils

    from ascend_plugin.streams import Event, current_stream

    cuda: Any = torch.cuda  # names of it are replaced, which mypy holds to what they were
    npu: Any = torch_npu.npu
    if cuda.Stream is npu.Stream:
        return

    def set_stream(stream: Any) -> None:
        torch_utils._current_stream_tls.value = stream  # what vllm.utils.torch_utils.current_stream() returns
        npu.set_stream(stream)

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

    cuda.Stream = npu.Stream
    cuda.Event = Event
    cuda.stream = StreamContext
    cuda.set_stream = set_stream
    cuda.current_stream = current_stream
    cuda.default_stream = npu.default_stream
    cuda.is_current_stream_capturing = npu.is_current_stream_capturing
    cuda.graph_pool_handle = npu.graph_pool_handle
