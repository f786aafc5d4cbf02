"""A cache that sleeps is not lost twice: the record by which it wakes stays."""

from __future__ import annotations

from typing import Any

import pytest


class Runner:
    """What a sleep-mode backend asks of a model runner, with a cache of one layer and a model of one product."""

    def __init__(self) -> None:
        import torch

        self.kv_caches = [torch.ones(4, 64, dtype=torch.float16, device="npu")]
        self.model = torch.nn.Linear(64, 64, dtype=torch.float16).to("npu")

    def get_model(self) -> Any:
        return self.model

    def models(self) -> list[Any]:
        return [self.model]

    def drop_graphs(self) -> None: ...

    def capture_again(self) -> None: ...


def discard_after_suspend() -> tuple[list[int], list[int], str]:
    """Sizes of the cache asleep and awake, and the backend's state in the end."""
    import torch

    from ascend_plugin.sleep import AscendSleepBackend

    torch.npu.set_device(0)
    runner, backend = Runner(), AscendSleepBackend()
    backend.attach(runner)
    with torch.inference_mode():
        backend.suspend(level=1)
        backend.discard(("kv_cache",))
        asleep = list(runner.kv_caches[0].shape)
        backend.resume()
    return asleep, list(runner.kv_caches[0].shape), backend.state()


@pytest.mark.chips("310P3")
def test_discard_after_suspend_keeps_the_record(npu: Any) -> None:
    assert npu.call(discard_after_suspend) == ([0], [4, 64], "RUNNING")


def suspend_while_weights_are_written() -> list[float]:
    """What the weights hold after a sleep that began with a write of them still queued in another stream."""
    import torch

    from ascend_plugin.sleep import AscendSleepBackend

    torch.npu.set_device(0)
    runner, backend = Runner(), AscendSleepBackend()
    backend.attach(runner)
    side = torch.npu.Stream()
    with torch.inference_mode():
        large = torch.ones(1024, 1024, dtype=torch.float16, device="npu")
        torch.npu.synchronize()
        with torch.npu.stream(side):
            for _ in range(8):
                large = torch.mm(large, large)
            runner.model.weight.fill_(3)
        backend.suspend(level=1)
        backend.resume()
    return runner.model.weight.unique().tolist()


@pytest.mark.chips("310P3")
def test_what_is_queued_is_done_before_weights_are_copied(npu: Any) -> None:
    assert npu.call(suspend_while_weights_are_written) == [3]
