"""Tiny checkpoints with a published architecture's structure and seeded weights whose logits say something.

Default initialization (std 0.02) gives nearly flat logits: every wrong answer then looks right within rounding. Here
each matrix keeps unit scale, attention is peaked enough that positions matter, every norm weight and bias differs
from its neutral value, and the output matrix spreads logits over a few units. `measure` states the outcome in
numbers.

Imports torch and transformers: run it in a process of its own (see `reference.py`).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from conformance import media, media_reference, quantized
from conformance.architectures import FACTS, Architecture
from conformance.draft_head import LAYER_SHARE, DraftHead, add_draft_head, build_draft_head
from conformance.layouts import published_layout
from conformance.prompts import NEW_TOKENS, make_prompts

LOGIT_STD = 3.0
QUERY_KEY_GAIN = 1.5  # of each side where there is no norm, or of the norm's weight: scores then spread over about 2
ROUTER_GAIN = 2.0
TIED_BRANCH_GAIN = 2.0


def build_reference_model(architecture: Architecture, seed: int = 0) -> transformers.PreTrainedModel:
    """What the engine is compared with: of a quantized checkpoint the weights that it stands for (quantized.py)."""
    return _build(architecture, seed)[0]


def _build(architecture: Architecture, seed: int) -> tuple[transformers.PreTrainedModel, quantized.Stored | None]:
    model = _build_float_model(architecture, seed)
    if architecture.scheme is None:
        return model, None
    texts = make_prompts(architecture.vocab_size, architecture.task, seed).all
    return model, quantized.quantize(architecture.scheme, model, texts)


def _build_float_model(architecture: Architecture, seed: int) -> transformers.PreTrainedModel:
    """The architecture as transformers has it, in fp32; every weight is exact in bf16 and, but for underflow, fp16."""
    config = transformers.AutoConfig.for_model(**architecture.config)
    config.architectures = [architecture.model_class]
    config._attn_implementation = "eager"  # the one that knows every architecture's caps, windows and sinks
    model = getattr(transformers, architecture.model_class)(config)
    generator = torch.Generator().manual_seed(seed)
    tied = bool(getattr(config, "tie_word_embeddings", False))
    # Tied, the token just read has a head start in the logits: drown its share of the residual stream.
    branch_gain = architecture.branch_gain * (TIED_BRANCH_GAIN if tied else 1.0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            value = _draw(name, parameter, generator, branch_gain, tied)
            parameter.copy_(value.to(torch.bfloat16))
        if (
            architecture.media
        ):  # an answer must hold no placeholder, whose place transformers would look for a picture in
            model.get_output_embeddings().weight[-len(architecture.processor["tokens"]) :] = 0.0
    model.tie_weights()
    return model.float().eval()


def write_checkpoint(
    architecture: Architecture, parent: Path, seed: int = 0, lessons: tuple[list[list[int]], int] | None = None
) -> Path:
    """Write the checkpoint as its authors lay it out, bf16 safetensors, with `facts.json`; return its directory.

    lessons: prompts, and how many tokens after them, that its prediction layer is taught instead of the check's.
    """
    directory = Path(parent) / architecture.checkpoint_name(seed)
    model, stored = _build(architecture, seed)
    head = draft_head_of(architecture, model, seed, lessons) if architecture.drafts_itself else None
    staging = directory.with_name(directory.name + ".part")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    if architecture.media:
        media.write_processor(architecture, staging)
    facts = _facts(architecture, model, staging)
    model.to(torch.bfloat16).save_pretrained(staging)
    if architecture.renames:
        rename_weights(staging, architecture.renames)
    if architecture.transposed:
        transpose_weights(staging, architecture.transposed)
    if head is not None:
        add_draft_head(head, staging)
    if stored is not None:
        quantized.rewrite(staging, stored)
    if architecture.engine_class is not None:
        _name_engine_class(staging, architecture.engine_class)
    if architecture.layout is not None:
        published_layout(architecture.layout, staging)
    (staging / FACTS).write_text(json.dumps(facts, indent=2) + "\n")
    shutil.rmtree(directory, ignore_errors=True)
    staging.rename(directory)
    return directory


def rename_weights(directory: Path, renames: Mapping[str, str]) -> None:
    """Give the weights of a checkpoint the names that the published one has, where transformers writes others."""
    file = directory / "model.safetensors"
    weights = load_file(file)
    for pattern, published in renames.items():
        weights = {re.sub(pattern, published, name): weight for name, weight in weights.items()}
    save_file(weights, file, metadata={"format": "pt"})


def transpose_weights(directory: Path, pattern: str) -> None:
    """Store weights of these names as [.., in, out], where the published checkpoint does and transformers does not."""
    file = directory / "model.safetensors"
    weights = load_file(file)
    chosen = [name for name in weights if re.search(pattern, name)]
    if not chosen:
        raise ValueError(f"No weight of the checkpoint is named as {pattern!r}, which the table's row transposes.")
    weights.update({name: weights[name].transpose(-1, -2).contiguous() for name in chosen})
    save_file(weights, file, metadata={"format": "pt"})


def draft_head_of(
    architecture: Architecture,
    model: transformers.PreTrainedModel,
    seed: int = 0,
    lessons: tuple[list[list[int]], int] | None = None,
) -> DraftHead:
    """The multi-token prediction layer of the checkpoint."""

    def draw(name: str, parameter: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return _draw(name, parameter, generator, LAYER_SHARE, tied=False)

    if lessons is None:
        lessons = make_prompts(architecture.vocab_size, architecture.task, seed).all, NEW_TOKENS
    return build_draft_head(model, lessons[0], draw, seed, lessons[1])


def _facts(architecture: Architecture, model: transformers.PreTrainedModel, folder: Path) -> dict[str, Any]:
    """Size of the model and, if it generates, what its logits say, with a complaint if that is too little."""
    facts: dict[str, Any] = {"parameters": sum(parameter.numel() for parameter in model.parameters())}
    if architecture.task == "generate" and not architecture.media:
        prompts = make_prompts(architecture.vocab_size, architecture.task).all
        with torch.inference_mode():
            found = measure([model(input_ids=torch.tensor([prompt])).logits[0] for prompt in prompts], prompts)
        positions = sum(len(prompt) for prompt in prompts)
        facts["informativeness"] = asdict(found)
        facts["complaint"] = found.complaint(architecture.vocab_size, positions)
    elif architecture.media:
        seen: list[Any] = [prompt for prompt in media.make_prompts(architecture).whole if len(prompt) > 1]
        facts["effect"] = media_reference.effect(model, media_reference.read_processor(folder), seen)
        facts["complaint"] = media_reference.complaint(facts["effect"])
    return facts


def _name_engine_class(directory: Path, engine_class: str) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": [engine_class]}, indent=2) + "\n")


def _draw(
    name: str, parameter: torch.Tensor, generator: torch.Generator, branch_gain: float, tied: bool
) -> torch.Tensor:
    """A value for one parameter, chosen by its role, which transformers' names give away."""
    noise = torch.randn(parameter.shape, generator=generator)
    if name.endswith("A_log"):  # decay of a gated delta net: between a few tokens of memory and a hundred
        return torch.empty(parameter.shape).uniform_(0.05, 2.0, generator=generator).log()
    if name.endswith("dt_bias"):
        return noise - 2.0
    if re.search(r"norm|ln_", name, re.IGNORECASE):
        return _norm_value(name, parameter, noise, branch_gain)
    if parameter.dim() == 1:
        return 0.2 * noise
    if re.search(r"(position|token_type)_embedding|pos_embed|class_embed|cls_token", name):
        return 0.5 * noise
    if re.search(r"patch_embed", name) and parameter.dim() > 1:
        patch_root: float = parameter[0].numel() ** 0.5
        return noise / patch_root
    if re.search(r"embed|wte", name):
        return noise * (LOGIT_STD / parameter.shape[-1] ** 0.5 if tied else 1.0)
    fan_in = parameter.shape[-1] if "experts" in name else parameter[0].numel()  # experts are [experts, out, in]
    root: float = fan_in**0.5
    return noise * _gain(name, branch_gain) / root


def _norm_value(name: str, parameter: torch.Tensor, noise: torch.Tensor, branch_gain: float) -> torch.Tensor:
    neutral = float(
        parameter.flatten()[0]
    )  # 1, or 0 where the module adds one itself (Gemma, Qwen3-Next) and for biases
    if re.search(r"[qk]_norm|(query|key)_norm", name):
        return neutral + (QUERY_KEY_GAIN - 1) + 0.1 * noise
    if (
        re.search(r"post_.*_layernorm", name) and branch_gain != 1.0
    ):  # Gemma's norm after a block is what scales the block
        return neutral + (branch_gain - 1) + 0.1 * noise
    return neutral + 0.1 * noise


def _gain(name: str, branch_gain: float) -> float:
    if re.search(r"lm_head|score|classifier", name):
        return LOGIT_STD
    if re.search(r"mlp\.gate\.|block_sparse_moe\.gate\.|router", name):
        return ROUTER_GAIN
    if re.search(r"[qk]_proj|query|key\b|qkv_proj", name):
        return QUERY_KEY_GAIN
    if re.search(r"o_proj|out_proj|down_proj", name):
        return branch_gain
    return 1.0


@dataclass(frozen=True)
class Informativeness:
    """How much the reference logits say, over all positions of the prompts."""

    logit_std: float  # over the vocabulary, mean over positions
    distinct_argmax: int
    repeats_input: float  # share of positions whose most likely token is the one just read
    top_probability: float  # mean

    def complaint(self, vocab_size: int, positions: int) -> str | None:
        """Why these logits could hide a fault, or None."""
        if self.logit_std < 1.0:
            return f"the logits are flat (std {self.logit_std:.2f}, at least 1 wanted)"
        if self.distinct_argmax < min(vocab_size, positions) // 8:
            return f"only {self.distinct_argmax} different tokens are ever the most likely, in {positions} positions"
        if self.repeats_input > 0.25:
            return f"the model repeats its input at {self.repeats_input:.0%} of positions"
        if not 0.02 < self.top_probability < 0.9:
            return f"the most likely token has probability {self.top_probability:.2f}, neither a guess nor a choice"
        return None


def measure(logits: Iterable[torch.Tensor], tokens: Iterable[list[int]]) -> Informativeness:
    """Informativeness of logits ([positions, vocabulary] for each sequence of tokens)."""
    rows = torch.cat(list(logits)).float()
    read = torch.tensor([token for sequence in tokens for token in sequence])
    best = rows.argmax(dim=-1)
    return Informativeness(
        logit_std=rows.std(dim=-1).mean().item(),
        distinct_argmax=best.unique().numel(),
        repeats_input=(best == read).float().mean().item(),
        top_probability=rows.softmax(dim=-1).amax(dim=-1).mean().item(),
    )
