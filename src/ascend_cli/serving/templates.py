"""A chat template tried on a small conversation, in a process that can be ended: one that loops would hold up a server.

vLLM renders templates in one thread without a limit of time. Request-given templates are refused by vLLM; the
checkpoint's own comes from whoever published it.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import resource
from pathlib import Path
from typing import Any

from ascend_cli.errors import UsageError

LIMIT_S = 5
MEMORY_BYTES = 1 << 30
LARGEST_BYTES = 1 << 20  # of a template, and of what it may render a few words into
CONVERSATION = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hello, what can I do?"},
    {"role": "user", "content": "Sing"},
]


def check_templates(folder: Path, tokenizer_config: Any) -> None:
    """Refuse a template that does not end, or that renders a few words into megabytes. Raises UsageError."""
    for source, template in _templates(folder, tokenizer_config):
        if len(template) > LARGEST_BYTES:
            raise UsageError(
                f"{source} is larger than a chat template can be: give another with -- --chat-template FILE"
            )
        problem = _try(template)
        if problem:
            raise UsageError(f"{source} {problem}: give another chat template with -- --chat-template FILE")


def _templates(folder: Path, tokenizer_config: Any) -> list[tuple[str, str]]:
    found = []
    for name in ("chat_template.jinja", "chat_template.json"):
        file = folder / name
        if file.exists() and not file.is_file():
            raise UsageError(f"{file} is {'a folder' if file.is_dir() else 'not a file'}: download it again")
        if file.is_file():
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
                text = file.read_text(encoding="utf-8")
                found.append((str(file), text if name.endswith("jinja") else json.loads(text)["chat_template"]))
    given = tokenizer_config.get("chat_template") if isinstance(tokenizer_config, dict) else None
    if given is not None and not isinstance(given, str | list):
        raise UsageError(f"{folder / 'tokenizer_config.json'}: chat_template is no text: download it again")
    entries = given if isinstance(given, list) else [{"template": given}]
    source = f"{folder / 'tokenizer_config.json'}: chat_template"
    found += [(source, entry.get("template")) for entry in entries if isinstance(entry, dict)]
    return [(source, template) for source, template in found if isinstance(template, str)]


def _try(template: str) -> str:
    """What is wrong with it; empty for what renders in time, and for errors that a conversation may not meet."""
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_render, args=(template, writer), daemon=True)
    process.start()
    writer.close()
    process.join(2 * LIMIT_S)
    if process.is_alive():
        process.kill()
        process.join()
        return f"does not end within {LIMIT_S} s"
    if process.exitcode:
        return f"does not end within {LIMIT_S} s and {MEMORY_BYTES >> 30} GiB"
    size = reader.recv() if reader.poll() else 0
    if isinstance(size, str):
        return f"is no template ({size})"
    return f"makes {size >> 10} KiB of a few words" if size > LARGEST_BYTES else ""


def _render(template: str, writer: Any) -> None:
    from jinja2 import TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_S, LIMIT_S + 1))
    with open("/proc/self/statm", encoding="ascii") as file:
        limit = int(file.read().split()[0]) * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals |= {"raise_exception": _raise, "strftime_now": lambda form: form}
    environment.filters["tojson"] = lambda value, **_: json.dumps(value)
    try:
        size = 0
        names = {"messages": CONVERSATION, "add_generation_prompt": True, "bos_token": "", "eos_token": ""}
        for part in environment.from_string(template).generate(names):
            size += len(part)
            if size > LARGEST_BYTES:
                break
        writer.send(size)
    except MemoryError:
        raise SystemExit(1) from None
    except TemplateSyntaxError as error:
        writer.send(f"line {error.lineno}: {error.message}"[:200])
    except Exception:  # it may want what this small conversation has not
        writer.send(0)


def _raise(message: str) -> None:
    raise ValueError(message)
