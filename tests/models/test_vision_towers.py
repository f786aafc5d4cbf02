"""Whole towers of vision models on a chip, without an engine: right, and how often a step of pictures waits."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ascend_emulator.pytest_plugin import Npu

from tests.end_to_end.server import free_port

from .served import on_the_cpu

pytestmark = pytest.mark.slow  # each chip's process imports vLLM

NAMES = ["qwen2-vl", "qwen2.5-vl", "qwen3-vl"]

# The checkpoint, pixels and grids of some pictures, and what transformers' tower makes of them in fp32 and fp16.
MAKE = """
import sys
from pathlib import Path
sys.modules["torch_npu"] = None
from ascend_plugin.compat import torchvision
torchvision.apply()
import numpy as np, torch
from conformance import media, media_reference
from conformance.architectures import architectures
from conformance.checkpoint import build_reference_model, write_checkpoint
name, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
made = write_checkpoint(architectures()[name], folder)
processor = media_reference.read_processor(made).image_processor
sizes = [media.PICTURE_SIZES[index % 4] for index in range(count)]
inputs = processor(images=[media.picture(*size, index) for index, size in enumerate(sizes)], return_tensors="pt")
pictures = [media.picture(*size, index) for index, size in enumerate(sizes)]
raw = processor(images=pictures, return_tensors="pt", do_normalize=False, do_rescale=False)["pixel_values"]
found = {"pixels": inputs["pixel_values"].numpy(), "raw": raw.numpy(), "grids": inputs["image_grid_thw"].numpy()}
model = build_reference_model(architectures()[name])
for dtype in (torch.float32, torch.float16):
    model.to(dtype)
    with torch.inference_mode():
        output = model.model.get_image_features(inputs["pixel_values"].to(dtype), inputs["image_grid_thw"])
    parts = [torch.cat(list(output.pooler_output))]
    parts += [torch.cat(list(level)) for level in getattr(output, "deepstack_features", None) or ()]
    found[str(dtype)] = torch.cat(parts, dim=-1).float().numpy()
np.savez(folder / "tower.npz", **found)
print(made)
"""

_models: dict[str, Any] = {}


def _load(checkpoint: str) -> Any:
    """vLLM's model with the plugin's layers, on the chip, as a worker has it after loading."""
    if checkpoint in _models:
        return _models[checkpoint]
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.distributed import parallel_state
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader import get_model

    from ascend_plugin import compat, detection, ops

    config = EngineArgs(model=checkpoint, max_model_len=256, dtype="float16").create_engine_config()
    ops.register_encoder_layers()
    torch.npu.set_device(0)
    with set_current_vllm_config(config):
        if not torch.distributed.is_initialized():
            parallel_state.init_distributed_environment(1, 0, f"tcp://127.0.0.1:{free_port()}", 0, "gloo")
            parallel_state.ensure_model_parallel_initialized(1, 1, backend="gloo")
        model = get_model(vllm_config=config)
    compat.prepare_model(model, detection.current_chip())
    _models[checkpoint] = config, model
    return config, model


def encode(checkpoint: str, file: str, pictures: int) -> tuple[np.ndarray, dict[str, int]]:
    """Features [tokens, width] of the first pictures, and what one step of them asks of the chip."""
    import torch
    from ascend_emulator import counters
    from vllm.config import set_current_vllm_config

    config, model = _load(checkpoint)
    with np.load(file) as arrays:
        grids = torch.from_numpy(arrays["grids"][:pictures])
        patches = int(grids.prod(-1).sum())
        raw = getattr(model.visual.input_norm, "input_dtype", None)  # of towers that normalize pixels themselves
        pixels = torch.from_numpy(arrays["raw" if raw else "pixels"][:patches]).to(raw or torch.float16)
    with set_current_vllm_config(config), torch.inference_mode():
        for _ in range(2):  # what is made once is made in the first
            on_chip = pixels.npu()
            torch.npu.synchronize()
            counters.reset_stats()
            features = torch.cat(list(model.embed_multimodal(pixel_values=on_chip, image_grid_thw=grids)))
            torch.npu.synchronize()  # the one wait of a device, which is ours
            stats = counters.stats()
    waits = stats["synchronizations"]
    asked = {
        "launches": stats["launches_total"],
        "waits": sum(waits[kind] for kind in ("stream", "blocking_copy", "event")),
        "read back": stats["copies"]["device_to_host"]["count"],
        "sent": stats["copies"]["host_to_device"]["count"],
    }
    return features.float().cpu().numpy(), asked


@pytest.fixture(scope="module", params=NAMES)
def tower(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("tower")
    return on_the_cpu(MAKE, request.param, str(folder), "100"), folder / "tower.npz"


@pytest.mark.chips("310P3", "910B3")
def test_towers_are_right_and_a_hundred_pictures_wait_as_often_as_two(npu: Npu, tower: tuple[str, Path]) -> None:
    checkpoint, file = tower
    two, asked_for_two = npu.call(encode, checkpoint, str(file), 2)
    hundred, asked = npu.call(encode, checkpoint, str(file), 100)
    with np.load(file) as arrays:
        exact, rounded = arrays["torch.float32"], arrays["torch.float16"]
    noise = float(np.sqrt(np.mean((rounded - exact) ** 2)))
    for found in (two, hundred):
        assert float(np.sqrt(np.mean((found - exact[: len(found)]) ** 2))) < 3 * noise
    swapped = np.concatenate([exact[len(two) :], exact[: len(two)]])
    assert float(np.sqrt(np.mean((hundred - swapped) ** 2))) > 30 * noise, "pictures differ by more than rounding"
    print("ASKED", Path(checkpoint).name, json.dumps({"two": asked_for_two, "hundred": asked}))
    assert asked["waits"] <= asked_for_two["waits"] + 2, (asked_for_two, asked)
    assert asked["read back"] <= asked_for_two["read back"] + 1, (asked_for_two, asked)
