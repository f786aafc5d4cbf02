"""What the worker is doing, so that an error of the device is told as one: phase, chip, cause, remedy, in a line."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch

from ascend_facts.device_errors import explain
from ascend_facts.first_line import LONGEST, first_line
from ascend_plugin.log import plugin_logger

logger = plugin_logger(__name__)
LAST_WORDS = "ASCEND_LAST_WORDS"  # a file that `ascend serve` reads when it ends: its last line is then the cause
SEE_ABOVE = "The Inner error is reported as above"
Method = TypeVar("Method", bound=Callable[..., Any])


class DeviceFailed(RuntimeError):
    """The message is the whole story; the exception that it was made from is in the log at level DEBUG."""


def phase(words: str) -> Callable[[Method], Method]:
    """Decorate a worker's method: errors of the device in it become DeviceFailed, all others pass and are told last.

    words: what follows "while", in the past tense.
    """

    def decorate(method: Method) -> Method:
        @functools.wraps(method)
        def run(worker: Any, *arguments: Any, **named: Any) -> Any:
            with _told(worker, words):
                result = method(worker, *arguments, **named)
            _guard_output(result, worker, words)
            return result

        return run  # type: ignore[return-value]

    return decorate


@contextmanager
def _told(worker: Any, words: str) -> Iterator[None]:
    try:
        yield
    except DeviceFailed:
        raise
    except Exception as error:
        rank = getattr(worker, "local_rank", None)
        told = explain(_whole_story(error), words, rank) if isinstance(error, RuntimeError) else None
        if told is None:
            say_last(_in_a_sentence(error, words))
            raise
        logger.debug("The device's own words:", exc_info=True)
        say_last(told)
        raise DeviceFailed(told) from None


def _guard_output(result: Any, worker: Any, words: str) -> None:
    """Asynchronous scheduling waits for a step later, when it asks the step's output for its tokens."""
    get_output = getattr(result, "get_output", None)
    if get_output is None:
        return

    def guarded() -> Any:
        with _told(worker, words):
            return get_output()

    result.get_output = guarded


def _whole_story(error: RuntimeError) -> str:
    """The error's text; with the device's code where torch_npu has printed that and raises a reference to it.

    A device that has failed answers every call with the same code until it is reset.
    """
    text = str(error)
    if SEE_ABOVE in text:
        try:
            torch.accelerator.synchronize()
        except RuntimeError as again:
            text += f"\n{again}"
    return text


def _in_a_sentence(error: Exception, words: str) -> str:
    """What this package raises is a sentence that says what to do."""
    message = first_line(error, LONGEST)
    if _raised_in(error).startswith("ascend_plugin"):
        return message
    while_ = words.replace("it was", "the chip was", 1)
    return f"The engine failed while {while_}: {message} ({type(error).__name__}); the lines above say where."


def _raised_in(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", ""))


def say_last(sentence: str) -> None:
    """Leave a sentence for the launcher to end with; the first one is the cause."""
    file = os.environ.get(LAST_WORDS)
    if file:
        with suppress(OSError):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as output:
                output.write(sentence)
