"""What the plugin chooses where the user chose nothing, and what it refuses with a remedy."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent

QWEN3_32B = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 5120, "intermediate_size": 25600,
    "num_hidden_layers": 64, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128,
    "vocab_size": 151936, "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
    "tie_word_embeddings": False, "hidden_act": "silu", "torch_dtype": "bfloat16",
}  # fmt: skip

WHISPER = {
    "architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper", "is_encoder_decoder": True,
    "d_model": 128, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "num_mel_bins": 16, "max_target_positions": 448, "vocab_size": 384,
}  # fmt: skip

FLY = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3, "rejection_sample_method": "fly"}


def configure(
    emulated: Callable, model: Path, chip: str = "310P3", count: int = 4, **options: Any
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "configure.py"), str(model), json.dumps(options)]
    return emulated(chip=chip, count=count).run(command, capture_output=True, text=True)


def chosen(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    lines = [line for line in done.stdout.splitlines() if line.startswith("CONFIGURATION ")]
    assert lines, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(lines[-1].removeprefix("CONFIGURATION "))


def test_nothing_needs_to_be_chosen_on_310p(emulated: Callable, qwen3: Path) -> None:
    done = configure(emulated, qwen3)
    facts = chosen(done)
    assert facts["dtype"] == "torch.float16"
    assert facts["graph_mode"] == "FULL_DECODE_ONLY"
    assert facts["graph_sizes"][0] == 1
    assert facts["step_tokens"] == 512  # so that a prompt does not wait for seven others
    assert facts["worker"].startswith("ascend_plugin.")
    assert not facts["opened_device"]  # a device context in the front end would cost memory and break forks
    assert (done.stdout + done.stderr).count("Falling back to torch.float16") == 1


def test_910b_keeps_bf16(emulated: Callable, qwen3: Path) -> None:
    facts = chosen(configure(emulated, qwen3, chip="910B3"))
    assert facts["dtype"] == "torch.bfloat16"
    assert facts["step_tokens"] >= 2048  # vLLM's own choice


def test_flags_of_earlier_guides_are_accepted(emulated: Callable, qwen3: Path) -> None:
    options = {"enforce_eager": True, "dtype": "float16", "tensor_parallel_size": 4, "max_num_batched_tokens": 1024}
    facts = chosen(configure(emulated, qwen3, **options))
    assert facts["graph_mode"] == "NONE"
    assert facts["step_tokens"] == 1024


@pytest.mark.parametrize(
    ("options", "reason", "remedy"),
    [
        ({"dtype": "bfloat16"}, "Ascend310P3 computes in float16", "Leave out --dtype bfloat16"),
        ({"tensor_parallel_size": 8}, "8 chips are asked for", "lower --tensor-parallel-size"),
        ({"pipeline_parallel_size": 2}, "neither Send nor Receive on Ascend310P3", "raise --tensor-parallel-size"),
        ({"tensor_parallel_size": 8, "nnodes": 2}, "joins the chips of one server only", "behind a load balancer"),
        ({"kv_cache_dtype": "fp8"}, "keeps its cache in the model's dtype", "Leave out --kv-cache-dtype fp8"),
        ({"watermark_config": {"key": 7}}, "in Triton, watermarks", "Leave out --watermark-config"),
        ({"speculative_config": FLY}, "a Triton kernel without a stand-in", 'Leave out "rejection_sample_method"'),
    ],
    ids=["bf16", "too many chips", "pipeline", "two servers", "fp8 cache", "watermark", "fly"],
)
def test_impossible_choices(emulated: Callable, qwen3: Path, options: dict, reason: str, remedy: str) -> None:
    done = configure(emulated, qwen3, **options)
    assert done.returncode != 0
    assert reason in done.stderr
    assert remedy in done.stderr


def test_the_second_model_runner_is_refused(emulated: Callable, qwen3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
    done = configure(emulated, qwen3)
    assert done.returncode != 0
    assert "Unset VLLM_USE_V2_MODEL_RUNNER" in done.stderr


def test_32b_on_one_chip_is_refused_with_the_arithmetic(emulated: Callable, smollm2: Path, tmp_path: Path) -> None:
    """There are no weights to read: had the refusal come later, the error would be another."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text((smollm2 / name).read_text())
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_32B))
    job = tmp_path / "job.json"
    job.write_text(json.dumps([{"model": str(tmp_path), "options": {"max_model_len": 4096}, "rounds": []}]))
    command = [sys.executable, str(HERE / "engine.py"), str(job), str(tmp_path / "answer.json")]
    done = emulated(chip="310P3", count=1).run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "does not fit Ascend310P3 at tensor-parallel size 1" in done.stderr
    assert "61.0 GiB of fp16 weights" in done.stderr
    assert "--tensor-parallel-size 2" in done.stderr


def test_an_encoder_is_refused_before_its_steps_are(emulated: Callable, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(WHISPER))
    done = configure(emulated, tmp_path, max_num_batched_tokens=256, skip_tokenizer_init=True)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "decoders that look at an encoder's output" in said
    assert "is smaller than max_model_len" not in said  # true as well, but no larger step would help
