"""What the tests of served models share: a checkpoint with a tokenizer, and Python run where no NPU is seen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ascend_cli.registry.smollm2 import find_gguf
from conformance.places import CPU_ONLY

MAKE = """
import json, sys
from pathlib import Path
sys.modules["torch_npu"] = None
from dataclasses import replace
from gguf import GGUFReader
from conformance.architectures import architectures
from conformance.checkpoint import write_checkpoint
from ascend_cli.registry.smollm2 import write_tokenizer
from conformance.tiny import CHAT_TEMPLATE, VOCABULARY
name, folder, gguf, changes = sys.argv[1:]
entry = architectures()[name]
config = {**entry.config, "vocab_size": VOCABULARY, **json.loads(changes)}
made = write_checkpoint(replace(entry, config=config), Path(folder))
write_tokenizer(GGUFReader(gguf), made, CHAT_TEMPLATE)
print(made)
"""


def on_the_cpu(script: str, *arguments: str, text: str | None = None) -> str:
    """The last line that a script prints, run in a process of its own."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, env=os.environ | CPU_ONLY, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def make_checkpoint(architecture: str, folder: Path, changes: str = "{}") -> str:
    """The folder of a conformance checkpoint with SmolLM2's vocabulary; changes (JSON) are made to its config."""
    return on_the_cpu(MAKE, architecture, str(folder), str(find_gguf()), changes)


MEDIA_TEMPLATE = """\
{%- if tools -%}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif -%}
{%- for message in messages -%}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}
{%- for part in message.content -%}
{%- if part.type == 'text' -%}{{ part.text }}
{%- elif part.type in placeholders -%}{{ placeholders[part.type] }}{%- endif -%}
{%- endfor -%}{% endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
"""

# A conformance checkpoint with media, SmolLM2's vocabulary and, behind it, the special tokens of its processor.
MAKE_WITH_MEDIA = """
import json, sys
from pathlib import Path
sys.modules["torch_npu"] = None
from ascend_plugin.compat import torchvision
torchvision.apply()
from dataclasses import replace
from gguf import GGUFReader
from transformers import AutoTokenizer
from conformance import media
from conformance.architectures import architectures
from conformance.checkpoint import write_checkpoint
from ascend_cli.registry.smollm2 import write_tokenizer
from conformance.tiny import VOCABULARY
name, folder, gguf, changes, template = sys.argv[1:]
entry, changes = architectures()[name], json.loads(changes)
special = list(entry.processor["tokens"])
size = -(-(VOCABULARY + len(special)) // 64) * 64
plain = Path(folder) / "tokenizer"
plain.mkdir(parents=True)
placeholders = {"image": entry.media.get("image"), "image_url": entry.media.get("image"),
    "video": entry.media.get("video"), "video_url": entry.media.get("video"),
    "audio": entry.media.get("audio"), "input_audio": entry.media.get("audio"), "audio_url": entry.media.get("audio")}
head = "{%- set placeholders = " + json.dumps({k: v for k, v in placeholders.items() if v}) + " -%}"
write_tokenizer(GGUFReader(gguf), plain, head + template)
tokenizer = AutoTokenizer.from_pretrained(plain, extra_special_tokens=dict(entry.processor.get("named_tokens", {})))
tokenizer.add_special_tokens({"additional_special_tokens": special}, replace_extra_special_tokens=False)
numbers = tokenizer.convert_tokens_to_ids(special)  # named ones come first
behind = list(range(VOCABULARY, VOCABULARY + len(special)))
assert sorted(numbers) == behind, "special tokens come behind the vocabulary"
new = dict(zip(media.token_numbers(special, entry.vocab_size).values(), numbers, strict=True))
config = {key: new.get(value, value) if "token" in key else value for key, value in entry.config.items()}
for part in ("text_config", "vision_config", "audio_config"):
    if part in config:
        config[part] = {**config[part], **changes.get(part, {})}
config["text_config"]["vocab_size"] = size
media.make_tokenizer = lambda architecture: tokenizer
made = write_checkpoint(replace(entry, config=config), Path(folder))
print(made)
"""


def make_checkpoint_with_media(architecture: str, folder: Path, changes: str = "{}") -> str:
    """The folder of a conformance checkpoint with media, which chats; changes (JSON) by part of its config."""
    return on_the_cpu(MAKE_WITH_MEDIA, architecture, str(folder), str(find_gguf()), changes, MEDIA_TEMPLATE)
