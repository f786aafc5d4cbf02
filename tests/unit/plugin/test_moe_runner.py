"""Which expert layers multiply their routed output by the model's factor in float16, and what they load."""

from __future__ import annotations

import torch
from torch import nn
from vllm.model_executor.layers.fused_moe.runner.moe_runner import MoERunner

from ascend_plugin.ops.moe_runner import AscendMoERunner, find_compensated


class Runner(AscendMoERunner):
    def __init__(self) -> None:
        nn.Module.__init__(self)  # vLLM's wants a whole layer
        self.routed_scaling_factor = 2.5


class DeepseekV2DecoderLayer(nn.Sequential):
    """As vLLM's: its residual is divided by the factor."""


class Glm4MoeDecoderLayer(nn.Sequential):
    """As vLLM's: it knows nothing of the factor."""


def test_only_layers_that_make_up_for_it_leave_the_factor_out() -> None:
    model = nn.ModuleList([DeepseekV2DecoderLayer(Runner()), Glm4MoeDecoderLayer(Runner())])
    find_compensated(model)
    shared, routed = torch.ones(2, dtype=torch.float16), torch.ones(2, dtype=torch.float16)
    results = [layer[0]._maybe_apply_routed_scale_to_output(shared.clone(), routed.clone()) for layer in model]
    (divided, whole), (untouched, multiplied) = results
    assert divided.tolist() == [0.39990234375] * 2 and whole.tolist() == [1.0, 1.0]
    assert untouched.tolist() == [1.0, 1.0] and multiplied.tolist() == [2.5, 2.5]


class AXK1DecoderLayer(nn.Sequential):
    """As vLLM's: it divides its residual by the factor, and norms what the experts answer."""

    routed_scaling_factor = 2.5


def test_a_layer_that_norms_the_experts_output_divides_nothing() -> None:
    layer = AXK1DecoderLayer(Runner())
    find_compensated(layer)
    ones = torch.ones(2, dtype=torch.float16)
    shared, routed = layer[0]._maybe_apply_routed_scale_to_output(ones.clone(), ones.clone())
    assert layer.routed_scaling_factor == 1.0
    assert shared.tolist() == [1.0, 1.0] and routed.tolist() == [2.5, 2.5]


class Experts(nn.Module):
    """In the place of the routed experts: takes experts' weights, and drops any other as vLLM's does."""

    def __init__(self) -> None:
        super().__init__()
        self.e_score_correction_bias = nn.Parameter(torch.zeros(4), requires_grad=False)
        self.taken: list[str] = []

    def load_weights(self, weights):
        self.taken = [name for name, _ in weights if name[0].isdigit()]
        return ["w13_weight"]


def test_the_bias_of_the_choice_is_loaded_beside_the_experts() -> None:
    dropped, loaded = MoERunner.__new__(MoERunner), Runner()
    weights = [("0.up_proj.weight", torch.ones(1)), ("e_score_correction_bias", torch.arange(4.0))]
    weights.append(("1.up_proj.weight", torch.ones(1)))
    nn.Module.__init__(dropped)
    for runner in (dropped, loaded):
        runner.routed_experts = Experts()
    assert list(dropped.load_weights(iter(weights))) == ["routed_experts.w13_weight"]
    assert not dropped.routed_experts.e_score_correction_bias.any(), "vLLM loads it now: take ours away"
    names = list(loaded.load_weights(iter(weights)))
    assert names == ["routed_experts.w13_weight", "routed_experts.e_score_correction_bias"]
    assert loaded.routed_experts.e_score_correction_bias.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert loaded.routed_experts.taken == ["0.up_proj.weight", "1.up_proj.weight"]
