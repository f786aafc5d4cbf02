"""Models and weights that are refused from their configuration alone, before anything is read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ascend_facts import chips
from ascend_plugin.configuration import UnsupportedChoice, _check_architecture, _check_weights

DUO = chips.find("310P3")


def config(architecture: str = "Qwen3ForCausalLM", quantization: str | None = None, **section: Any) -> Any:
    hf = SimpleNamespace(quantization_config=section or None)
    model = SimpleNamespace(hf_config=hf, hf_text_config=hf, quantization=quantization, architecture=architecture)
    return SimpleNamespace(model_config=model, attention_config=SimpleNamespace(backend="TRITON_ATTN"))


def groups(**weights: Any) -> dict[str, Any]:
    return {"config_groups": {"group_0": {"weights": weights, "input_activations": weights.pop("activations", None)}}}


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"quant_method": "modelopt_mxfp4"}, "four-bit floats"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "take the model unquantized"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "do not run"),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "nvfp4-pack-quantized",
                **groups(num_bits=4, type="float"),
            },
            "four-bit floats",
        ),
        ({"quant_method": "compressed-tensors", **groups(num_bits=8, type="int")}, "take a W8A8 checkpoint"),
        (
            {"quant_method": "compressed-tensors", **groups(num_bits=4, type="int", activations={"num_bits": 8})},
            "take AWQ, GPTQ or W8A8",
        ),
        ({"quant_method": "torchao"}, "take the model unquantized"),
    ],
)
def test_formats_that_nothing_reads(section: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedChoice, match=f"^Use another checkpoint: .*{said}"):
        _check_weights(config(**section), DUO)


@pytest.mark.parametrize(
    "section",
    [
        {},
        {"quant_method": "fp8", "weight_block_size": [128, 128]},
        {"quant_method": "mxfp4"},  # gpt-oss
        {"quant_method": "awq", "bits": 4},
        {"quant_method": "compressed-tensors", **groups(num_bits=8, type="int", activations={"num_bits": 8})},
        {"quant_method": "compressed-tensors", **groups(num_bits=4, type="int")},
    ],
)
def test_formats_that_are_read_pass(section: dict[str, Any]) -> None:
    _check_weights(config(**section), DUO)


def test_quantizing_while_loading_is_refused() -> None:
    with pytest.raises(UnsupportedChoice, match=r"^Leave out --quantization fp8, or name a checkpoint"):
        _check_weights(config(quantization="fp8"), DUO)
    _check_weights(config(quantization="fp8", quant_method="fp8"), DUO)


def test_architectures_by_name_and_by_folder() -> None:
    with pytest.raises(UnsupportedChoice, match=r"such as DeepSeek-V3\.1 or GLM-4\.6: DeepseekV32ForCausalLM"):
        _check_architecture(config("DeepseekV32ForCausalLM"))
    with pytest.raises(UnsupportedChoice, match=r"for CUDA and ROCm only .vllm\.models\.beam"):
        _check_architecture(config("BeamForCausalLM"))
    _check_architecture(config("Qwen3ForCausalLM"))


def test_the_backend_that_vllm_names_for_gemma_4_is_no_choice() -> None:
    gemma, other = config("Gemma4ForCausalLM"), config("Qwen3ForCausalLM")
    for one in (gemma, other):
        _check_architecture(one)
    assert (gemma.attention_config.backend, other.attention_config.backend) == (None, "TRITON_ATTN")


def test_attention_is_refused_for_what_it_does_not_compute_and_for_nothing_else() -> None:
    from ascend_plugin.attention.paged_nz import PagedNzAttention

    plain = {"num_heads": 4, "head_size": 64, "scale": 0.125}
    PagedNzAttention(**plain, chunk_lookback=-1, indexer=None, use_other=False)  # Rnj-1's layers that see everything
    with pytest.raises(ValueError, match=r"^Use another model .* attention has chunk_lookback and indexer, which"):
        PagedNzAttention(**plain, chunk_lookback=1, indexer=object())


def test_an_encoder_with_a_window_is_refused_where_a_text_outgrows_it() -> None:
    from ascend_plugin.attention.base import _refuse_window

    _refuse_window(64, 64)
    with pytest.raises(ValueError, match=r"^Give --max-model-len 64, or use another model: an encoder's attention"):
        _refuse_window(64, 65)
