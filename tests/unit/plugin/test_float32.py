"""float32 models on a chip that multiplies float16: what becomes of their cache and memory, and which are refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ascend_cli.plan.planner import PlanRequest, Workload, make_plan
from ascend_cli.registry.cards import Model
from ascend_facts import chips
from ascend_facts.memory_plan import MemoryRequest, plan_memory, weight_bytes
from ascend_facts.model_shape import read_model_shape
from ascend_facts.quantized_format import UNQUANTIZED, held_format
from ascend_plugin.configuration import UnsupportedChoice, _prepare_float32

DUO, A2 = chips.find("310P3"), chips.find("910B3")
GEMMA2_2B = {
    "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "hidden_size": 2304, "intermediate_size": 9216,
    "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    "vocab_size": 256000, "max_position_embeddings": 8192, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}  # fmt: skip


def configuration(dtype: torch.dtype = torch.float32, **model: Any) -> Any:
    facts = {"is_hybrid": False, "quantization": None, "runner_type": "generate", "experts": 0, **model}
    experts = facts.pop("experts")
    config = SimpleNamespace(dtype=dtype, get_num_experts=lambda: experts, **facts)
    return SimpleNamespace(model_config=config, cache_config=SimpleNamespace(cache_dtype="auto"))


@pytest.mark.parametrize(
    ("dtype", "chip", "cache"),
    [(torch.float32, DUO, "float16"), (torch.float16, DUO, "auto"), (torch.float32, A2, "auto")],
)
def test_the_cache_is_in_the_dtype_of_products(dtype: torch.dtype, chip: chips.ChipSpec, cache: str) -> None:
    config = configuration(dtype)
    _prepare_float32(config, chip)
    assert config.cache_config.cache_dtype == cache


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"experts": 8}, "experts"),
        ({"is_hybrid": True}, "recurrent layers"),
        ({"quantization": "ascend"}, "quantized weights"),
        ({"runner_type": "pooling"}, "pooling"),
    ],
)
def test_what_does_not_run_in_float32_is_refused_with_the_remedy(facts: dict[str, Any], word: str) -> None:
    with pytest.raises(UnsupportedChoice, match=f"Give --dtype float16.*{word}"):
        _prepare_float32(configuration(**facts), DUO)


def test_memory_of_a_model_beyond_float16() -> None:
    shape = read_model_shape(GEMMA2_2B)
    assert (shape.dtype_on(DUO), shape.dtype_on(A2)) == ("float32", "bfloat16")
    here = held_format(UNQUANTIZED, DUO, shape.dtype_on(DUO))
    assert (here, held_format(UNQUANTIZED, A2, shape.dtype_on(A2))) == ("fp16+fp32", "fp16")
    table = 256000 * 2304
    # The embedding, which is looked up, is in float32; the norms are too, and next to nothing.
    requests = [MemoryRequest(1, DUO.usable_memory_bytes(), name) for name in ("fp16", here)]
    sixteen, mixed = (weight_bytes(shape, request) for request in requests)
    assert mixed - sixteen == pytest.approx(2 * table, rel=1e-3)
    plans = [plan_memory(shape, request) for request in requests]
    assert plans[1].cache_bytes_per_token == plans[0].cache_bytes_per_token
    assert plans[1].activation_bytes > 1.3 * plans[0].activation_bytes


def test_a_plan_offers_no_format_that_would_be_refused() -> None:
    shape = read_model_shape(GEMMA2_2B)

    def formats(chip: chips.ChipSpec) -> list[str]:
        here = held_format(UNQUANTIZED, chip, shape.dtype_on(chip))
        question = PlanRequest(Model("gemma", GEMMA2_2B, "folder"), chip, 4, Workload(256, 128), here)
        return [choice.weight_format for choice in make_plan(question).quantized]

    assert not formats(DUO)
    assert "w8a8" in formats(A2)
