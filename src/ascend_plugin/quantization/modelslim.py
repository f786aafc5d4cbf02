"""ModelSlim checkpoints: Huawei's quantizer writes int8 weights and a description that names each tensor's kind.

`quant_model_description.json` maps a tensor's name to FLOAT, W8A8 (activations quantized by constants), W8A8_DYNAMIC
(by token) and others; a layer's tensors lie under its name in the checkpoint:

    W8A8           weight int8 [out, in], input_scale and input_offset [1], deq_scale [out] (int64: the bits of a
                   float32; or float32), quant_bias int32 [out]: bias and offset, folded into the sums
    W8A8_DYNAMIC   weight int8 [out, in], weight_scale [out, 1], weight_offset [out, 1]: zero
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig, QuantizeMethodBase

from ascend_facts.quantized_format import MODELSLIM_DESCRIPTION
from ascend_plugin import detection
from ascend_plugin.quantization.errors import UnsupportedCheckpoint
from ascend_plugin.quantization.names import MODELSLIM

FLOAT, STATIC, DYNAMIC = "FLOAT", "W8A8", "W8A8_DYNAMIC"
KINDS = (FLOAT, STATIC, DYNAMIC)
NOT_YET = {
    "W8A8S": "sparse weights",
    "W8A8SC": "sparse weights, compressed for one tensor-parallel size",
}


class ModelSlimConfig(QuantizationConfig):
    """Kinds of a checkpoint's tensors by name, as vLLM's layers are called."""

    def __init__(self, kinds: dict[str, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kinds = kinds

    @classmethod
    def get_name(cls) -> str:  # type: ignore[override]  # the base class lists names; ours is registered
        return MODELSLIM

    @classmethod
    def get_supported_act_dtypes(cls) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    @classmethod
    def get_min_capability(cls) -> int:
        return 0  # of CUDA; what an Ascend chip lacks is refused below

    @staticmethod
    def get_config_filenames() -> list[str]:
        return [MODELSLIM_DESCRIPTION]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ModelSlimConfig:
        """Raises UnsupportedCheckpoint if any tensor is of a kind that does not run here."""
        kinds = {name: kind for name, kind in config.items() if "." in name and isinstance(kind, str)}
        _refuse_unsupported(kinds)
        return cls(kinds)

    def apply_vllm_mapper(self, hf_to_vllm_mapper: Any) -> None:
        self.kinds = hf_to_vllm_mapper.apply_dict(self.kinds)

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> QuantizeMethodBase | None:
        # Layers are imported where a model is built: the front end asks this module only what a checkpoint is.
        from vllm.model_executor.layers.fused_moe import RoutedExperts
        from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod

        from ascend_plugin.quantization.modelslim_experts import DynamicExperts
        from ascend_plugin.quantization.modelslim_linear import DynamicLinear, StaticLinear

        if isinstance(layer, RoutedExperts):
            return DynamicExperts(layer.moe_config) if self.kind_of_experts(prefix) == DYNAMIC else None
        if not isinstance(layer, LinearBase):
            return None
        method: type[Any] = {FLOAT: UnquantizedLinearMethod, STATIC: StaticLinear, DYNAMIC: DynamicLinear}[
            self.kind_of(prefix)
        ]
        return method()

    def kind_of(self, prefix: str) -> str:
        """Kind of a layer; FLOAT if the description does not name it. Raises UnsupportedCheckpoint for a mixture."""
        parent, _, name = prefix.rpartition(".")
        parts = self.packed_modules_mapping.get(name, [name])
        found = {self.kinds.get(f"{parent}.{part}.weight", FLOAT) for part in parts}
        if len(found) > 1:
            raise UnsupportedCheckpoint(
                f"The parts {', '.join(parts)} of {prefix} are of different kinds ({', '.join(sorted(found))}): vLLM "
                "multiplies by them at once, so quantize them alike."
            )
        return found.pop()

    def kind_of_experts(self, prefix: str) -> str:
        """The one kind of a layer's routed experts. Raises UnsupportedCheckpoint for a mixture."""
        weights = {
            kind for name, kind in self.kinds.items() if name.startswith(f"{prefix}.") and name.endswith(".weight")
        }
        if len(weights) > 1:
            raise UnsupportedCheckpoint(
                f"The experts of {prefix} are of different kinds ({', '.join(sorted(weights))}): vLLM multiplies by "
                "them at once, so quantize them alike."
            )
        return weights.pop() if weights else FLOAT


def _refuse_unsupported(kinds: dict[str, str]) -> None:
    chip = detection.current_chip()
    if "int8" not in chip.matmul_dtypes:
        raise UnsupportedCheckpoint(
            f"{chip.soc_version} has no int8 products: use the checkpoint that is not quantized."
        )
    for name, kind in kinds.items():
        if kind not in KINDS:
            why = f" ({NOT_YET[kind]})" if kind in NOT_YET else ""
            raise UnsupportedCheckpoint(
                f"Use a W8A8 or W8A8_DYNAMIC checkpoint of this model: {name} is of the kind {kind}{why}, which this "
                "plugin does not read yet."
            )
        if kind != FLOAT and ("embed_tokens" in name or name.startswith("lm_head")):
            raise UnsupportedCheckpoint(
                f"{name} is of the kind {kind}, but embeddings and output matrices must be FLOAT."
            )
        if kind == STATIC and ".experts." in name:
            raise UnsupportedCheckpoint(
                f"Use a W8A8_DYNAMIC checkpoint of this model: {name} is of the kind {kind}, and the activations of "
                "experts are quantized by token only."
            )
