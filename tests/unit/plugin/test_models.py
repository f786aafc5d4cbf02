"""Models that are mended here: what vLLM's class leaves out is there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from vllm.model_executor.models.registry import ModelRegistry

from ascend_plugin import models
from ascend_plugin.models.eagle3 import AscendEagle3Llama, columns_of_targets
from ascend_plugin.models.gemma3n import Gemma3nForCausalLM
from ascend_plugin.models.phimoe import PhiMoEForCausalLM


class Recorder:
    """In the place of Gemma 3n's body: keeps what it is given."""

    given: Any = None

    def get_per_layer_input_embeddings(self, input_ids: torch.Tensor) -> torch.Tensor:
        return input_ids[:, None] * torch.ones(6)

    def __call__(self, input_ids: torch.Tensor, positions: torch.Tensor, **more: Any) -> torch.Tensor:
        self.given = more["per_layer_inputs"]
        return positions


def test_text_meets_the_embeddings_of_each_layer() -> None:
    model = object.__new__(Gemma3nForCausalLM)
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


def test_logits_have_the_bias_of_the_output_matrix() -> None:
    model = object.__new__(PhiMoEForCausalLM)
    torch.nn.Module.__init__(model)
    head = SimpleNamespace(bias=torch.tensor([1.0, 2.0]))
    model.__dict__.update(lm_head=head, logits_processor=lambda head, states, bias: states + bias)
    assert model.compute_logits(torch.zeros(1, 2)).tolist() == [[1.0, 2.0]]


def test_the_mended_classes_are_the_ones_that_load() -> None:
    known = {name: ModelRegistry.models[name] for name in models.MENDED}
    try:
        models.register()
        models.register()
        for name, ours in (
            ("Gemma3nForCausalLM", Gemma3nForCausalLM),
            ("PhiMoEForCausalLM", PhiMoEForCausalLM),
            ("LlamaForCausalLMEagle3", AscendEagle3Llama),
        ):
            assert ModelRegistry.models[name].load_model_cls() is ours
    finally:
        ModelRegistry.models.update(known)


def test_a_head_says_the_tokens_of_its_own_vocabulary_alone() -> None:
    model = object.__new__(AscendEagle3Llama)
    torch.nn.Module.__init__(model)
    said = torch.tensor([1, 4, 5])  # of the target's six tokens
    columns = columns_of_targets(said - torch.arange(3), vocab_size=6)
    model.__dict__.update(lm_head=None, logits_processor=lambda head, states: states, draft_columns=columns)
    logits = torch.tensor([[0.5, -1.0, 2.0], [3.0, 4.0, 5.0]])
    expected = torch.full((2, 6), float("-inf"))
    expected[:, said] = logits
    assert model.compute_logits(logits).equal(expected)
    model.__dict__["draft_columns"] = None  # a head of the target's whole vocabulary
    assert model.compute_logits(logits) is logits
