"""Is everything alive? One short test per layer, the lowest first: the first failure names the layer to look at.

Runs on the chip that is there: an emulated one where no CANN is installed, else a real card.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch_npu

from ascend_facts.chips import chips

CPU = torch.device("cpu")
NPU = torch.device("npu")


class TestDevice:
    def test_a_chip_is_there_and_known(self) -> None:
        assert torch.npu.device_count() >= 1
        assert torch.npu.get_device_name(0) in {chip.soc_version for chip in chips()}

    def test_memory_comes_and_goes(self) -> None:
        before = torch.npu.memory_allocated()
        block = torch.empty(1 << 20, dtype=torch.uint8, device=NPU)
        grown = torch.npu.memory_allocated() - before
        assert 1 << 20 <= grown <= (1 << 20) + 1024  # some chips pad a block by 32 bytes; the allocator rounds to 512
        del block
        assert torch.npu.memory_allocated() == before

    def test_data_survives_the_round_trip(self) -> None:
        data = torch.arange(1000, dtype=torch.int32)
        assert torch.equal(data.to(NPU).to(CPU), data)


class TestOperators:
    def test_elementwise(self) -> None:
        x = torch.linspace(-2, 2, 77, dtype=torch.float16)
        assert torch.equal((x.to(NPU) * 2 + 1).to(CPU), x * 2 + 1)

    @pytest.mark.parametrize("acl_format", [2, 29], ids=["ND", "FRACTAL_NZ"])
    def test_matmul(self, acl_format: int) -> None:
        torch.manual_seed(0)
        x, weight = torch.randn(5, 64, dtype=torch.float16), torch.randn(48, 64, dtype=torch.float16)
        cast_weight = torch_npu.npu_format_cast(weight.to(NPU), acl_format)
        result = torch.nn.functional.linear(x.to(NPU), cast_weight).to(CPU).float()
        torch.testing.assert_close(result, x.float() @ weight.float().T, atol=2e-2, rtol=2e-3)


class TestStreamsAndGraphs:
    def test_an_event_orders_two_streams(self) -> None:
        side, event = torch.npu.Stream(), torch.npu.Event()
        x = torch.zeros(1 << 16, device=NPU)
        for _ in range(50):
            x += 1
        event.record()
        with torch.npu.stream(side):
            side.wait_event(event)
            y = x * 2
        side.synchronize()
        assert y[0].item() == 100

    def test_a_graph_replays_with_new_input(self) -> None:
        x = torch.ones(16, device=NPU)
        graph = torch.npu.NPUGraph()
        with torch.npu.graph(graph):
            y = x * 3
        x.fill_(5)
        graph.replay()
        assert y.to(CPU).tolist() == [15.0] * 16


class TestSoftwareAbove:
    def test_vllm_finds_the_plugin(self) -> None:
        # In a process of its own: vLLM chooses once, and a test that needs no chip may have made it choose here.
        program = "from vllm.platforms import current_platform; print(type(current_platform).__module__)"
        answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        assert answer.split()[-1] == "ascend_plugin.platform"

    def test_the_command_line_answers(self) -> None:
        ascend = Path(sys.executable).with_name("ascend")
        help_text = subprocess.run([ascend, "--help"], capture_output=True, text=True, check=True).stdout
        assert {"doctor", "plan", "deploy", "serve", "bench"} <= set(help_text.split())
