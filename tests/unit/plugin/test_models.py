"""Models that are mended here: what vLLM's class leaves out is there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from vllm.model_executor.models.registry import ModelRegistry

from ascend_plugin import models


class Recorder:
    """In the place of Gemma 3n's body: keeps what it is given."""

    given: Any = None

    def get_per_layer_input_embeddings(self, input_ids: torch.Tensor) -> torch.Tensor:
        return input_ids[:, None] * torch.ones(6)

    def __call__(self, input_ids: torch.Tensor, positions: torch.Tensor, **more: Any) -> torch.Tensor:
        self.given = more["per_layer_inputs"]
        return positions


def test_text_meets_the_embeddings_of_each_layer() -> None:
    model = object.__new__(models.Gemma3nForCausalLM)
    torch.nn.Module.__init__(model)
    body = Recorder()
    model.__dict__.update(config=SimpleNamespace(num_hidden_layers=3), model=body)
    tokens = torch.tensor([4, 7])
    model(tokens, torch.arange(2))
    assert body.given.shape == (2, 3, 2) and body.given[1].eq(7).all()
    passed = torch.zeros(2, 3, 2)
    model(tokens, torch.arange(2), per_layer_inputs=passed)
    assert body.given is passed, "what a multimodal model passes is kept"
    model(None, torch.arange(2), inputs_embeds=torch.zeros(2, 8))
    assert body.given is None


def test_the_mended_class_is_the_one_that_loads() -> None:
    known = ModelRegistry.models["Gemma3nForCausalLM"]
    try:
        models.register()
        models.register()
        assert ModelRegistry.models["Gemma3nForCausalLM"].load_model_cls() is models.Gemma3nForCausalLM
    finally:
        ModelRegistry.models["Gemma3nForCausalLM"] = known
