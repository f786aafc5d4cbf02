"""Capturing a forward pass as an ACL graph, replaying it, and refreshing host-side lengths in between."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch_npu
from vllm.compilation.counter import compilation_counter
from vllm.compilation.cuda_graph import CUDAGraphWrapper
from vllm.compilation.monitor import validate_cudagraph_capturing_enabled
from vllm.config import CUDAGraphMode
from vllm.forward_context import BatchDescriptor, get_forward_context, is_forward_context_available
from vllm.sequence import IntermediateTensors

from ascend_facts.first_line import first_line
from ascend_plugin.detection import ACL_LIBRARY
from ascend_plugin.graphs.agreement import all_ranks, tensor_parallel_ranks
from ascend_plugin.graphs.events import EventMeter
from ascend_plugin.log import plugin_logger

logger = plugin_logger(__name__)

# An ExternalEvent of this torch_npu is 32 bytes from aclrtMallocAlign32, which nothing frees (NPUEvent::createEvent).
LOSES_EVENTS = "2.13."
ARRIVAL_S = 20.0  # by when the chip has certainly done what was launched before a failed capture


@dataclass
class UpdatableTask:
    """An operator inside a graph whose host-side arguments change from step to step.

    `launch` issues it again with the metadata of the step at hand; the graph waits for `ready` before it runs it.
    """

    handle: Any
    ready: Any
    launch: Callable[[], None]


@dataclass
class CapturedGraph:
    """A captured graph with its output; graph is None where capture failed and the batch runs eagerly."""

    graph: Any = None
    output: Any = None
    tasks: list[UpdatableTask] = field(default_factory=list)
    replayed: Any = None


_recording: list[UpdatableTask] | None = None


def is_recording() -> bool:
    return _recording is not None


@contextmanager
def _record(tasks: list[UpdatableTask]) -> Iterator[None]:
    global _recording
    _recording = tasks
    try:
        yield
    finally:
        _recording = None


def capture_updatable(launch: Callable[[], None]) -> None:
    """Launch an operator as a task group of the graph being captured, to be launched anew before each replay's turn."""
    stream = torch.npu.current_stream()
    ready = torch.npu.ExternalEvent()
    ready.wait(stream)
    ready.reset(stream)
    torch.npu.graph_task_group_begin(stream)
    launch()
    handle = torch.npu.graph_task_group_end(stream)
    _recording.append(UpdatableTask(handle, ready, launch))


class AscendGraphWrapper(CUDAGraphWrapper):
    """vLLM's graph wrapper on torch.npu's graphs: dispatch by the forward context, capture once, then replay."""

    _update_stream: Any = None
    _events = EventMeter()  # of the process's chip

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not is_forward_context_available():
            return self.runnable(*args, **kwargs)
        context = get_forward_context()
        mode = context.cudagraph_runtime_mode
        if mode == CUDAGraphMode.NONE or mode != self.runtime_mode:
            return self.runnable(*args, **kwargs)
        captured = self.concrete_cudagraph_entries.get(context.batch_descriptor)
        if captured is None:
            return self._capture(context.batch_descriptor, args, kwargs)
        if captured.graph is None:
            return self.runnable(*args, **kwargs)
        self._replay(captured)
        return captured.output

    def _capture(self, descriptor: BatchDescriptor, args: tuple, kwargs: dict) -> Any:
        """Capture a batch, if every rank can; where one cannot, all of them run it eagerly from then on."""
        validate_cudagraph_capturing_enabled()
        ranks = tensor_parallel_ranks()
        if not all_ranks(self._events.has_room(), ranks):
            reason = f"a graph takes {self._events.per_graph} events and the chip has too few left"
            return self._run_eagerly(descriptor, reason, args, kwargs)
        captured, failure = self._try_capture(descriptor, args, kwargs)
        if not all_ranks(failure is None, ranks):
            reason = failure or "capturing their graph failed on another rank"
            return self._run_eagerly(descriptor, reason, args, kwargs)
        self._events.measure()
        output, captured.output = captured.output, _weak(captured.output)
        self.concrete_cudagraph_entries[descriptor] = captured
        compilation_counter.num_cudagraph_captured += 1
        return output

    def _run_eagerly(self, descriptor: BatchDescriptor, reason: str, args: tuple, kwargs: dict) -> Any:
        logger.warning("Batches of %d tokens will run eagerly: %s.", descriptor.num_tokens, reason)
        self.concrete_cudagraph_entries[descriptor] = CapturedGraph()
        return self.runnable(*args, **kwargs)

    def _try_capture(self, descriptor: BatchDescriptor, args: tuple, kwargs: dict) -> tuple[CapturedGraph, str | None]:
        """The graph, and None or why there is none. Raises RuntimeError where nothing can be launched any more."""
        captured = CapturedGraph()
        graph = torch.npu.NPUGraph()
        try:
            with _record(captured.tasks):
                graph.capture_begin(pool=self.graph_pool, capture_error_mode="thread_local")
                try:
                    captured.output = self.runnable(*args, **kwargs)
                finally:
                    graph.capture_end()
        except RuntimeError as error:
            # Where an operation failed, the end of the capture fails too; the first error is the one that tells.
            first = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            reason = first_line(first)
            if not _launches_arrive():
                raise RuntimeError(
                    f"Capturing the graph of batches of {descriptor.num_tokens} tokens failed ({reason}), and "
                    "torch_npu launches nothing more after it. Start again with fewer graphs "
                    "(--cudagraph-capture-sizes) or none (--enforce-eager)."
                ) from error
            return captured, f"capturing their graph failed ({reason})"
        captured.graph = graph
        return captured, None

    def clear_graphs(self) -> None:
        """Forget the graphs, when none of them runs any more, and what their events take of the chip."""
        torch.npu.synchronize()
        tasks = [task for captured in self.concrete_cudagraph_entries.values() for task in captured.tasks]
        addresses = [task.ready.npu_event for task in tasks]
        tasks.clear()
        super().clear_graphs()
        if torch_npu.__version__.startswith(LOSES_EVENTS):
            for address in addresses:
                ctypes.CDLL(ACL_LIBRARY).aclrtFree(ctypes.c_void_p(address))

    def _replay(self, captured: CapturedGraph) -> None:
        captured.graph.replay()
        if not captured.tasks:
            return
        # The graph, already queued, waits at each of these operators until its event is recorded below. The arguments
        # must not change under an earlier replay that may still be running, hence the wait on the device.
        stream = self._stream_for_updates()
        if captured.replayed is not None:
            stream.wait_event(captured.replayed)
        with torch.npu.stream(stream):
            for task in captured.tasks:
                torch.npu.graph_task_update_begin(stream, task.handle)
                task.launch()
                torch.npu.graph_task_update_end(stream)
                task.ready.record(stream)
        captured.replayed = torch.npu.current_stream().record_event(captured.replayed)

    @classmethod
    def _stream_for_updates(cls) -> Any:
        if cls._update_stream is None:
            cls._update_stream = torch.npu.Stream()
        return cls._update_stream


def _launches_arrive() -> bool:
    """Whether what is launched still reaches the chip: an error in torch_npu's task queue ends the queue for good.

    Waiting for the chip would then never end, so an event is asked instead.
    """
    event = torch.npu.Event()
    event.record()
    end = time.monotonic() + ARRIVAL_S
    while not event.query():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def _weak(output: Any) -> Any:
    """The output without ownership of its memory, which belongs to the graph's pool and is reused by other graphs."""
    if isinstance(output, torch.Tensor):
        return torch_npu._C._weak_ref_tensor(output) if output.device.type == "npu" else output
    if isinstance(output, IntermediateTensors):
        return IntermediateTensors({name: _weak(tensor) for name, tensor in output.tensors.items()})
    if isinstance(output, list | tuple):
        return type(output)(_weak(item) for item in output)
    return output
