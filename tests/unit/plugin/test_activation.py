"""Apertus' activation in the types that a chip has."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from vllm.config import DeviceConfig, VllmConfig, set_current_vllm_config

from ascend_plugin.ops.activation import AscendXIELU


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_xielu_has_no_bfloat16_of_its_own_and_keeps_the_type_of_its_input(dtype: torch.dtype) -> None:
    with set_current_vllm_config(VllmConfig(device_config=DeviceConfig("cpu"))):
        activation = AscendXIELU()
    assert {value.dtype for value in activation.state_dict().values()} == {torch.float32}
    with torch.no_grad():
        activation.alpha_p.fill_(0.75)
        activation.alpha_n.fill_(-0.5)
    x = torch.tensor([-6.0, -1.0, -0.125, 0.0, 0.5, 3.0], dtype=dtype)
    wide = x.double()
    positive = nn.functional.softplus(torch.tensor(0.75).double())
    negative = 0.5 + nn.functional.softplus(torch.tensor(-0.5).double())
    expected = torch.where(wide > 0, positive * wide**2, (wide.expm1() - wide) * negative) + 0.5 * wide
    answer = activation.forward_oot(x)
    assert answer.dtype == dtype
    torch.testing.assert_close(answer.double(), expected, rtol=0.02, atol=2e-3)
