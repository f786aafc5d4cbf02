"""The token sequences that every architecture is checked on, and how they are split into checks.

Lengths sit on both sides of what implementations split work at: one token, a block (64 and 128 tokens), a chunk of
prefill, a sliding window (96 in the table). Tokens are random: real text would add nothing to random weights.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

CHUNK_TOKENS = 256  # the engine's token budget a step: longer prompts are prefilled in chunks
NEW_TOKENS = 12
ADAPTERS = 2  # LoRA: sequences take turns in none, the first and the second
FIRST_ORDINARY_TOKEN = 3

WHOLE_LENGTHS = (1, 5, 63, 127)  # together within one chunk
CHUNKED_LENGTHS = (129, 300, 420)
FEW_WHOLE_LENGTHS, FEW_CHUNKED_LENGTHS = (5, 63), (300,)
POOLING_LENGTHS = (3, 17, 64, 128, 129, 300) * 4  # a classifier gives one number a prompt: enough for statistics


@dataclass(frozen=True)
class Prompts:
    """Prompts (token ids) by the way they are meant to be prefilled."""

    whole: list[list[int]]
    chunked: list[list[int]]

    @property
    def all(self) -> list[list[int]]:
        return self.whole + self.chunked


@dataclass(frozen=True)
class Sequence:
    """One answered sequence: tokens the reference must see, and which of them the rows of the answer belong to."""

    tokens: tuple[int, ...]
    prompt_length: int
    first: int  # rows[0] predicts the token after tokens[first]


def make_prompts(vocab_size: int, task: str, seed: int = 0) -> Prompts:
    rng = random.Random(seed)

    def prompt(length: int) -> list[int]:
        return [rng.randrange(FIRST_ORDINARY_TOKEN, vocab_size) for _ in range(length)]

    if task != "generate":
        return Prompts([prompt(length) for length in POOLING_LENGTHS], [])
    return Prompts([prompt(length) for length in WHOLE_LENGTHS], [prompt(length) for length in CHUNKED_LENGTHS])


def make_few_prompts(vocab_size: int, task: str, seed: int = 0) -> Prompts:
    """Those of the registry's run, which asks the same of a hundred architectures: one of each kind."""
    rng = random.Random(seed)

    def prompt(length: int) -> list[int]:
        return [rng.randrange(FIRST_ORDINARY_TOKEN, vocab_size) for _ in range(length)]

    if task != "generate":
        return Prompts([prompt(length) for length in POOLING_LENGTHS[:6]], [])
    return Prompts([prompt(length) for length in FEW_WHOLE_LENGTHS], [prompt(length) for length in FEW_CHUNKED_LENGTHS])


def make_covering_prompts(vocab_size: int, seed: int = 0) -> Prompts:
    """Prompts with every ordinary token in them, so that whatever comes next can be drafted from them."""
    rng = random.Random(seed)

    def prompt() -> list[int]:
        return rng.sample(range(FIRST_ORDINARY_TOKEN, vocab_size), vocab_size - FIRST_ORDINARY_TOKEN)

    return Prompts([], [prompt() for _ in CHUNKED_LENGTHS])
