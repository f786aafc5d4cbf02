"""Processes on chips that fail as told, and what the tests of failures ask of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ascend_emulator.launcher import emulate
from ascend_emulator.worker import Worker

from . import cann

HANGS = -1
PATIENCE_S = 60  # far above what any answer takes, so that only a wait without end is called one


@contextmanager
def process(
    folder: Path, *faults: dict[str, Any], count: int = 1, seed: int = 0, **environment: str
) -> Iterator[Worker]:
    """A process on `count` chips, with torch_npu's calls made at once rather than by its queue."""
    description = folder / "faults.json"
    description.write_text(json.dumps({"seed": seed, "faults": list(faults)}))
    with ExitStack() as stack:
        machine = stack.enter_context(emulate(chip="910B3", count=count, faults=description))
        worker = Worker({**machine.environment, "TASK_QUEUE_ENABLE": "0", **environment})
        stack.callback(worker.close)
        yield worker


def code_of(function: str, *arguments: Any) -> int:
    """CANN's answer; 0 for success."""
    try:
        cann.call(function, *arguments)
    except cann.AclError as error:
        return error.code
    return 0


def answer(function: str, *arguments: Any) -> int:
    """CANN's answer, or HANGS."""
    return bounded(lambda: code_of(function, *arguments))


def bounded(action: Callable[[], int]) -> int:
    """The action's result, or HANGS. On a thread of its own, with the device of this one."""
    results: list[int] = []

    def work() -> None:
        cann.set_device()
        results.append(action())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return results[0] if results else HANGS


LOST = 507010
# An operator that loses the chip whenever it runs. Unlike "chip_lost", a reset brings the chip back: one process serves
# many tests.
LOSING_OPERATOR = {"kind": "launch", "operator": "aclnnInplaceAdds", "nth": 1, "times": 0, "code": LOST, "chip": 0}


def lose_the_chip() -> None:
    import time

    import torch

    torch.empty(4, device="npu").add_(1)
    while cann.library().aclrtPeekAtLastError(0) == 0:
        time.sleep(0.001)
