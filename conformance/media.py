"""Pictures, films and sounds made on the spot, the prompts that they are in, and the processors that read them.

A prompt with media is data: {"text": .., "image": [[width, height, seed], ..], "video": [[frames, width, height, seed],
..], "audio": [[samples, seed], ..]}, whose text has a placeholder for each. The engine and the reference make the same
media of it. The processor is transformers' own, at small sizes, with a tokenizer whose words are numbers.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conformance.prompts import CHUNK_TOKENS, FIRST_ORDINARY_TOKEN, Prompts

if TYPE_CHECKING:
    from PIL.Image import Image

    from conformance.architectures import Architecture

Media = dict[str, Any]  # a prompt as above

TOKEN = "token:"  # "token:<|image_pad|>" in a row of the table stands for the number of that token
SAMPLE_RATE = 16_000
FRAMES, FRAMES_PER_SECOND = 4, 2.0
PICTURE_SIZES = ((56, 56), (84, 56), (112, 84), (56, 112))
SAMPLES = (9_600, 16_000)


def picture(width: int, height: int, seed: int) -> Image:
    """A picture with slopes, a box and noise: every patch differs, and so does every picture."""
    from PIL import Image, ImageDraw

    rng = np.random.default_rng(seed)
    across, down = np.linspace(0, 1, width), np.linspace(0, 1, height)
    angles = rng.uniform(2, 9, size=(3, 2))
    planes = [np.sin(a * across)[None, :] + np.cos(b * down)[:, None] for a, b in angles]
    values = np.stack(planes, axis=-1) * 50 + 128 + rng.normal(0, 12, size=(height, width, 3))
    image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    box = sorted(rng.integers(0, width, 2)), sorted(rng.integers(0, height, 2))
    corners = (int(box[0][0]), int(box[1][0]), int(box[0][1]), int(box[1][1]))
    ImageDraw.Draw(image).rectangle(corners, fill=tuple(int(c) for c in rng.integers(0, 255, 3)))
    return image


def film(frames: int, width: int, height: int, seed: int) -> np.ndarray:
    """[frames, height, width, 3] uint8: pictures that turn into one another."""
    first, last = (np.asarray(picture(width, height, seed + end), dtype=np.float32) for end in (0, 1))
    shares = np.linspace(0, 1, frames, dtype=np.float32)[:, None, None, None]
    return (first * (1 - shares) + last * shares).astype(np.uint8)


def sound(samples: int, seed: int) -> np.ndarray:
    """[samples] float32 at SAMPLE_RATE: three gliding tones and noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / SAMPLE_RATE
    tones = [np.sin(2 * np.pi * (f + g * time) * time) for f, g in rng.uniform((150, -200), (1800, 200), size=(3, 2))]
    wave: np.ndarray = (0.2 * np.sum(tones, axis=0) + 0.02 * rng.normal(size=samples)).astype(np.float32)
    return wave


def load(prompt: Media) -> dict[str, list[Any]]:
    """The prompt's media by kind."""
    from PIL.Image import Transpose

    makers: dict[str, Callable[..., Any]] = {"image": picture, "video": film, "audio": sound}
    made = {kind: [maker(*facts) for facts in prompt[kind]] for kind, maker in makers.items() if prompt.get(kind)}
    if prompt.get("transposed"):  # a deliberate fault, see faults.py
        turns: dict[str, Callable[[Any], Any]] = {
            "image": lambda image: image.transpose(Transpose.TRANSPOSE),
            "video": lambda film: film.swapaxes(1, 2),
        }
        made = {kind: [turns.get(kind, lambda same: same)(item) for item in items] for kind, items in made.items()}
    return made


def for_engine(prompt: Media) -> dict[str, Any]:
    """The prompt as vLLM takes it."""
    media = load(prompt)
    if "audio" in media:
        media["audio"] = [(sound, SAMPLE_RATE) for sound in media["audio"]]
    if "video" in media:
        media["video"] = [(frames, video_facts(frames)) for frames in media["video"]]
    return {"prompt": prompt["text"], "multi_modal_data": media} if media else {"prompt": prompt["text"]}


def video_facts(frames: np.ndarray) -> dict[str, Any]:
    """What a reader of films tells about one whose frames were all taken."""
    count = len(frames)
    return {
        "total_num_frames": count,
        "fps": FRAMES_PER_SECOND,
        "duration": count / FRAMES_PER_SECOND,
        "frames_indices": list(range(count)),
        "video_backend": "opencv",
        "do_sample_frames": False,
    }


def make_prompts(architecture: Architecture, seed: int = 0) -> Prompts:
    """Prompts without media, with one and with several of each kind; long ones whose step ends within a picture."""
    rng = random.Random(seed)
    last = architecture.vocab_size - len(architecture.processor["tokens"])

    def words(count: int) -> str:
        return " ".join(f"t{rng.randrange(FIRST_ORDINARY_TOKEN, last)}" for _ in range(count))

    def prompt(*parts: int | str) -> Media:
        found: Media = {"text": ""}
        for part in parts:
            if isinstance(part, int):
                found["text"] += f" {words(part)} "
                continue
            number = len(found.setdefault(part, [])) + 1
            found["text"] += architecture.media[part].replace("{number}", str(number))
            found[part].append(_facts_of(part, rng, architecture.processor))
        found["text"] = architecture.processor.get("lead", "") + found["text"].strip(" ")
        return found

    kinds = list(architecture.media)
    whole: list[Any] = [prompt(17)] if architecture.processor.get("plain_text", True) else []
    chunked: list[Any] = []
    several = architecture.processor.get("several", 2)
    for kind in kinds:
        whole.append(prompt(5, kind, 7))
        twice: list[int | str] = [3, kind] * several
        if several > 1 and kind != "video":
            whole.append(prompt(*twice, 4))
        start = architecture.processor.get("long", CHUNK_TOKENS - 12)
        if start:
            again: list[int | str] = [kind, 30] if several > 1 and kind != "video" else []
            chunked.append(prompt(start, kind, 20, *again))
    return Prompts(whole, chunked)


def _facts_of(kind: str, rng: random.Random, row: Mapping[str, Any]) -> list[int]:
    seed = rng.randrange(1 << 30)
    if kind == "image":
        return [*rng.choice(row.get("pictures", PICTURE_SIZES)), seed]
    return [FRAMES, *row.get("film", PICTURE_SIZES[0]), seed] if kind == "video" else [rng.choice(SAMPLES), seed]


# ---------------------------------------------------------------------------------------------------- processors


def resolve(value: Any, tokens: Mapping[str, int]) -> Any:
    """A row's value with "token:.." replaced by that token's number."""
    if isinstance(value, str) and value.startswith(TOKEN):
        return tokens[value.removeprefix(TOKEN)]
    if isinstance(value, Mapping):
        return {key: resolve(inner, tokens) for key, inner in value.items()}
    return [resolve(inner, tokens) for inner in value] if isinstance(value, list) else value


def token_numbers(tokens: list[str], vocab_size: int) -> dict[str, int]:
    """Special tokens have the last numbers of the vocabulary."""
    return {token: vocab_size - len(tokens) + place for place, token in enumerate(tokens)}


def write_processor(architecture: Architecture, folder: Path) -> None:
    """Write tokenizer and processor files for a checkpoint, as their classes save them."""
    import transformers

    row = architecture.processor
    tokenizer = make_tokenizer(architecture)
    parts = {}
    for name, facts in row.get("parts", {}).items():
        facts = resolve(dict(facts), token_numbers(row["tokens"], architecture.vocab_size))
        parts[name] = getattr(transformers, facts.pop("class"))(**facts)
    if "class" in row:
        arguments = resolve(row.get("arguments", {}), token_numbers(row["tokens"], architecture.vocab_size))
        getattr(transformers, row["class"])(tokenizer=tokenizer, **parts, **arguments).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name, content in row.get("files", {}).items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def make_tokenizer(architecture: Architecture) -> Any:
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    special = architecture.processor["tokens"]
    ordinary = architecture.vocab_size - len(special)
    words = {f"t{number}": number for number in range(ordinary)}
    tokenizer = Tokenizer(WordLevel({**words, **token_numbers(special, architecture.vocab_size)}, unk_token="t0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    named = {"extra_special_tokens": dict(architecture.processor.get("named_tokens", {}))}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="t1", eos_token="t2", pad_token="t0", unk_token="t0", **named
    )


def inputs_for_reference(processor: Any, prompt: Media) -> dict[str, Any]:
    """What transformers' model takes for the prompt alone."""
    media = load(prompt)
    given: dict[str, Any] = {"text": [prompt["text"]], "return_tensors": "pt"}
    if "mm_token_type_ids" in processor.model_input_names:  # Cosmos 3 Edge's model wants what its processor leaves out
        given["return_mm_token_type_ids"] = True
    if "image" in media:
        given["images"] = media["image"]
    if "video" in media:
        from transformers.video_utils import VideoMetadata

        facts = [video_facts(frames) for frames in media["video"]]
        given["videos"] = media["video"]
        given["video_metadata"] = [
            VideoMetadata(**{key: value for key, value in found.items() if key != "do_sample_frames"})
            for found in facts
        ]
        given["do_sample_frames"] = False
    if "audio" in media:
        given["audio"] = media["audio"]
        given["sampling_rate"] = SAMPLE_RATE
    return dict(processor(**given))
