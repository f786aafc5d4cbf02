"""A multi-token prediction layer for a tiny checkpoint of the Qwen3-Next family, in the published names.

The layer reads the model's final hidden state of one token and the embedding of the next, and predicts the one after:
`fc` joins the two, each normed, and one decoder layer with a norm follows; embedding and output matrix are the model's
(vllm/model_executor/models/qwen3_next_mtp.py). Drawn at random it would never be right, and taught well never wrong;
then nothing would be learnt from a check with it. This one is taught the model's own greedy answers to the check's
prompts, two tokens in three: drafts are accepted and refused by turns.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

from conformance.prompts import NEW_TOKENS

Weights = dict[str, torch.Tensor]
Draw = Callable[[str, torch.Tensor, torch.Generator], torch.Tensor]

LAYER_SHARE = 0.3  # of what `fc` hands on: the decoder layer is drawn, and must not drown what `fc` was taught
RIDGE = 1e-3
UNTAUGHT = 3  # one token in so many


class DraftHead(torch.nn.Module):
    """The layer as transformers' own modules: a model with a single decoder layer, given `fc`'s output to read."""

    def __init__(self, model: transformers.PreTrainedModel, draw: Draw, seed: int) -> None:
        super().__init__()
        config = copy.deepcopy(model.config)
        config.num_hidden_layers, config.layer_types = 1, ["full_attention"]
        self.body = type(model)(config)
        norm, hidden = type(model.model.norm), config.hidden_size
        self.norm_embedding, self.norm_hidden = (norm(hidden, eps=config.rms_norm_eps) for _ in range(2))
        self.fc = torch.nn.Linear(2 * hidden, hidden, bias=False)
        generator = torch.Generator().manual_seed(seed + 1)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(draw(name, parameter, generator).to(torch.bfloat16))

    def joined(self, model: transformers.PreTrainedModel, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What `fc` reads for each token but the last, [tokens - 1, 2 * hidden], and the model's hidden states."""
        hidden = model.model(input_ids=tokens[None]).last_hidden_state[0]
        embedded = model.model.embed_tokens(tokens)
        return torch.cat([self.norm_embedding(embedded[1:]), self.norm_hidden(hidden[:-1])], dim=-1), hidden

    def drafts(self, model: transformers.PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
        """The tokens that follow each two of `tokens`, as drafted: place t stands for token t + 2."""
        read, _ = self.joined(model, tokens)
        logits: torch.Tensor = model.lm_head(self.body.model(inputs_embeds=self.fc(read)[None]).last_hidden_state[0])
        return logits.argmax(dim=-1)

    def teach(self, model: transformers.PreTrainedModel, texts: list[tuple[torch.Tensor, list[int]]]) -> None:
        """Fit `fc` so that it hands on what the model is going to say, at the given places of each text."""
        reads, wanted = [], []
        for tokens, places in texts:
            read, hidden = self.joined(model, tokens)
            reads.append(read[places])
            wanted.append(hidden[[place + 1 for place in places]] / (1 + self.body.model.norm.weight))
        read, aim = torch.cat(reads).double(), torch.cat(wanted).double()
        kernel = read @ read.T
        damped = kernel + RIDGE * kernel.diagonal().mean() * torch.eye(len(kernel), dtype=kernel.dtype)
        self.fc.weight.copy_((read.T @ torch.linalg.solve(damped, aim)).T.to(torch.bfloat16))

    def weights(self) -> Weights:
        """bf16, by their published names."""
        named = {
            "mtp.fc.weight": self.fc.weight,
            "mtp.pre_fc_norm_embedding.weight": self.norm_embedding.weight,
            "mtp.pre_fc_norm_hidden.weight": self.norm_hidden.weight,
        }
        with tempfile.TemporaryDirectory() as folder:  # transformers alone knows how experts are published
            copy.deepcopy(self.body).to(torch.bfloat16).save_pretrained(folder)
            body = load_file(Path(folder) / "model.safetensors")
        kept = {name: weight for name, weight in body.items() if "embed_tokens" not in name and "lm_head" not in name}
        named |= {name.replace("model.", "mtp.", 1): weight for name, weight in kept.items()}
        return {name: weight.detach().to(torch.bfloat16).contiguous() for name, weight in named.items()}


@torch.no_grad()
def build_draft_head(
    model: transformers.PreTrainedModel,
    prompts: list[list[int]],
    draw: Draw,
    seed: int = 0,
    new_tokens: int = NEW_TOKENS,
) -> DraftHead:
    head = DraftHead(model, draw, seed).eval()
    texts = []
    for prompt in prompts:
        tokens = _greedy(model, prompt, new_tokens)
        new = range(len(prompt) - 1, len(tokens) - 2)
        texts.append((tokens, [place for place in new if (place - len(prompt)) % UNTAUGHT]))
    head.teach(model, texts)
    return head


def _greedy(model: transformers.PreTrainedModel, prompt: list[int], count: int) -> torch.Tensor:
    options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    sequences: torch.Tensor = model.generate(torch.tensor([prompt]), max_new_tokens=count, **options)
    return sequences[0]


def add_draft_head(head: DraftHead, directory: Path) -> None:
    """Put the layer's weights beside the model's in a checkpoint."""
    path = directory / "model.safetensors"
    save_file({**load_file(path), **head.weights()}, path, metadata={"format": "pt"})
