"""What one request may ask for, checked on its parsed body before anything of vLLM sees it.

A server that is shared is held up by one client otherwise: five thousand prompts in a list stop `/health` for
seconds, an enumeration of 100,000 values takes the engine's memory, a regular expression of a megabyte two gigabytes.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

VARIABLE = "ASCEND_REQUEST_LIMITS"
PROMPTS = ("prompt", "prompts")
ITEMS = ("input", "documents", "items", "text_1", "text_2", "queries", "data_1", "data_2")
LISTS = ("stop", "stop_token_ids", "bad_words", "tools", "logit_bias")
STRINGS_OF_LISTS = ("stop", "bad_words")  # vLLM makes tokens of the latter in front of everybody else's requests
PAIRED = ("query", "queries", "documents", "text_1", "text_2", "data_1", "data_2")  # vLLM measures them as tokens only
CONVERSATIONS = ("messages", "input")
MEDIA = ("url", "image_url", "data", "file_data", "prompt_embeds", "image_embeds", "audio_embeds")  # hold base64
NAMES = ("model", "request_id", "previous_response_id", "user", "safety_identifier", "prompt_cache_key")  # go to logs
LARGEST_INT = (1 << 63) - 1
ENCODED = re.compile(rb"[A-Za-z0-9+/=_-]{1024,}")  # what base64 looks like, and text does not
LONG_NUMBER = re.compile(rb"\d{19}")
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class Refused(ValueError):
    """The request asks for more than the server gives; the message says what to do."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Bounds:
    """Largest values; each can be set by its name in ASCEND_REQUEST_LIMITS (`n=4,body_mib=8`)."""

    body_mib: int = 48  # a few photographs in base64, as in the renderings' proxy
    text_mib: int = 8  # of a body beside its pictures, films and sounds: twice a million tokens
    depth: int = 64  # of JSON
    n: int = 16  # answers to one prompt
    logprobs: int = 20  # as OpenAI has it; vLLM's --max-logprobs bounds it too
    prompts: int = 128  # in one request
    items: int = 2048  # to embed, rank or classify in one request, as OpenAI has it
    messages: int = 2048
    parts: int = 8192  # of all messages of a request, calls of tools among them
    name_chars: int = 1024  # of a model or of the id of a request, an answer or a user
    tokenize_kib: int = 1024  # to /tokenize and /detokenize, or of one text to score or rank: no context bounds these
    list: int = 1024  # entries of stop, bad_words, tools, logit_bias
    list_kib: int = 64  # of all entries of stop or bad_words
    schema_kib: int = 64  # of a JSON schema, a grammar or a structural tag
    schema_values: int = 2000  # of all enumerations and choices together
    regex_kib: int = 4
    compile_s: int = 5  # of one request's grammars, in a process of their own
    body_s: int = 60  # without a byte of the body

    @classmethod
    def from_environment(cls) -> Bounds:
        """Raises ValueError that names the variable, the entry and what is accepted."""
        given: dict[str, int] = {}
        accepted = {one.name for one in fields(cls)}
        for entry in filter(None, os.environ.get(VARIABLE, "").replace(" ", "").split(",")):
            name, _, value = entry.partition("=")
            if name not in accepted or not value.isascii() or not value.isdigit() or int(value) < 1:
                names = ", ".join(sorted(accepted))
                raise ValueError(f"{VARIABLE} has {entry!r}: write NAME=NUMBER entries between commas, of {names}")
            given[name] = int(value)
        return cls(**given)


def parse(body: bytes, bounds: Bounds) -> Any:
    """The body as JSON. Raises Refused for what JSON, vLLM's encoder or the engine's integers cannot hold."""
    if len(body) > bounds.text_mib << 20:  # as much as can be told before any of it is parsed, which takes seconds
        _no_more_than(len(body) - sum(len(run) for run in ENCODED.findall(body)), bounds)
    _no_deeper(body, "the request", bounds)
    try:
        parsed = json.loads(body, parse_constant=_no_constant)
    except Refused:
        raise
    except (ValueError, RecursionError) as error:
        raise Refused(f"Send valid JSON: {str(error)[:200]}.") from error
    _can_be_held(parsed, body)
    return parsed


def _no_deeper(text: bytes, of: str, bounds: Bounds) -> None:
    if _nesting(text, bounds.depth) > bounds.depth:
        raise Refused(f"Nest the JSON of {of} less: {bounds.depth} levels are taken.")


def _can_be_held(parsed: Any, body: bytes) -> None:
    if SURROGATE.search(body):
        try:
            json.dumps(parsed, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise Refused("Send valid Unicode: half of a surrogate pair (\\ud800 to \\udfff) stands alone.") from error
    if LONG_NUMBER.search(body) and any(isinstance(one, int) and abs(one) > LARGEST_INT for one, _ in _leaves(parsed)):
        raise Refused("Send integers of at most 64 bits.")


def _no_constant(name: str) -> None:
    raise Refused(f"Leave {name} out: it is no JSON.")


STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
BRACKETS = re.compile(rb"[\[\]{}]")


def _nesting(body: bytes, limit: int) -> int:
    """Depth of brackets outside strings, counted no further than just beyond the limit."""
    if body.count(b"[") + body.count(b"{") <= limit:
        return 0
    depth = deepest = 0
    for bracket in BRACKETS.findall(STRINGS.sub(b"", body)):
        depth += 1 if bracket in (b"[", b"{") else -1
        deepest = max(deepest, depth)
        if deepest > limit:
            break
    return deepest


def _leaves(value: Any) -> Iterator[tuple[Any, bool]]:
    """Each value that holds no others, and whether it stands where pictures, films and sounds do."""
    stack = [(value, False)]
    while stack:
        one, is_media = stack.pop()
        if isinstance(one, dict):
            stack.extend((held, name in MEDIA) for name, held in one.items())
        elif isinstance(one, list):
            stack.extend((held, is_media) for held in one)
        else:
            yield one, is_media


def check(body: Mapping[str, Any], bounds: Bounds) -> None:
    """Raises Refused for the first bound that the request is beyond. What is of the wrong type is vLLM's to refuse."""
    for name in ("n", "best_of"):
        _at_most(body, name, bounds.n)
    for name in ("logprobs", "top_logprobs", "prompt_logprobs"):
        _at_most(body, name, bounds.logprobs)
    if body.get("use_beam_search") is True:
        _at_most({"n with use_beam_search": body.get("n")}, "n with use_beam_search", bounds.n)
    for name in PROMPTS:
        _no_longer(body, name, bounds.prompts, "prompts", unless_of=int)
    for name in ITEMS:
        _no_longer(body, name, bounds.items, "entries", unless_of=int)
    _no_longer(body, "messages", bounds.messages, "messages")
    for name in LISTS:
        _no_longer(body, name, bounds.list, "entries")
    for name in STRINGS_OF_LISTS:
        _no_more_text(name, body.get(name), bounds.list_kib, sum)
    for name in PAIRED:
        _no_more_text(name, body.get(name), bounds.tokenize_kib, max)
    for name in NAMES:
        _is_a_name(name, body.get(name), bounds)
    for name in CONVERSATIONS:
        _check_conversation(body.get(name), bounds)
    for name in ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty"):
        value = body.get(name)
        if isinstance(value, float) and not math.isfinite(value):
            raise Refused(f"Give {name} as a finite number.")
    for kind, specification in structures(body):
        _check_structure(kind, specification, bounds)


def check_size(body: Mapping[str, Any], size: int, bounds: Bounds) -> None:
    """size: bytes of the body. Raises Refused: templates and validation work on text while nobody else is answered."""
    if size <= bounds.text_mib << 20:
        return
    holders = [body.get(name) for name in {*CONVERSATIONS, *ITEMS}]
    holders.append({"prompt_embeds": body.get("prompt_embeds")})
    media = sum(len(one) for one, is_media in _leaves(holders) if is_media and isinstance(one, str))
    _no_more_than(size - media, bounds)


def _no_more_than(text_bytes: int, bounds: Bounds) -> None:
    if text_bytes > bounds.text_mib << 20:
        raise Refused(
            f"Send less text in one request: {bounds.text_mib} MiB are taken beside pictures, films and sounds.", 413
        )


def _at_most(body: Mapping[str, Any], name: str, limit: int) -> None:
    value = body.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and value > limit:
        raise Refused(f"Ask for {name} of at most {limit}: {value} is more than this server gives in one request.")


def _no_longer(body: Mapping[str, Any], name: str, limit: int, what: str, unless_of: type | None = None) -> None:
    value = body.get(name)
    if not isinstance(value, list | dict) or len(value) <= limit:
        return
    if unless_of is not None and isinstance(value, list) and all(isinstance(one, unless_of) for one in value):
        return  # one prompt, as token ids
    raise Refused(
        f"Send at most {limit} {what} in {name} of one request, and the rest in further ones: {len(value)} came."
    )


def _no_more_text(name: str, value: Any, limit_kib: int, of: Callable[[Iterable[int]], int]) -> None:
    """of: sum for all texts together, max for the longest."""
    size = of([0, *(len(one) for one, is_media in _leaves(value) if not is_media and isinstance(one, str))])
    if size > limit_kib << 10:
        what = "altogether" if of is sum else "in one text"
        raise Refused(f"Shorten {name}: {limit_kib} KiB are taken {what}, {size >> 10} came.")


def _is_a_name(name: str, value: Any, bounds: Bounds) -> None:
    if isinstance(value, str) and len(value) > bounds.name_chars:
        raise Refused(f"Shorten {name}: {bounds.name_chars} characters are taken, {len(value)} came.")
    if isinstance(value, str) and not value.isprintable():
        raise Refused(f"Write {name} without control characters.")


def check_header(name: str, value: bytes, bounds: Bounds) -> None:
    """Of an id that vLLM writes to its log. Raises Refused."""
    _is_a_name(name, value.decode("latin-1"), bounds)


def _check_conversation(entries: Any, bounds: Bounds) -> None:
    """Parts of messages, and the JSON in strings that calls of tools have as their arguments: vLLM parses it."""
    parts = 0
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict):
            continue
        content, calls = (
            held if isinstance(held := entry.get(name), list) else [] for name in ("content", "tool_calls")
        )
        parts += len(content) + len(calls)
        if parts > bounds.parts:
            raise Refused(f"Send at most {bounds.parts} parts and calls of tools in the messages of one request.")
        for call in (entry, entry.get("function_call"), *calls):
            function = call.get("function", call) if isinstance(call, dict) else None
            if isinstance(function, dict) and isinstance(function.get("arguments"), str):
                _check_text(function["arguments"], "arguments", bounds)


def _check_text(text: str, of: str, bounds: Bounds) -> Any:
    """JSON in a string. Returns what it holds; None where it is none, which is vLLM's to say. Raises Refused."""
    body = text.encode(errors="surrogatepass")
    _no_deeper(body, of, bounds)
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    _can_be_held(parsed, body)
    return parsed


# ------------------------------------------------------------------ structured output


def structures(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Everything in a request that a grammar is compiled from, as (kind, specification)."""
    nested = body.get("structured_outputs")
    for holder in (nested if isinstance(nested, dict) else {}, body):
        prefix = "" if holder is nested else "guided_"
        for kind in ("json", "regex", "choice", "grammar"):
            if holder.get(prefix + kind) is not None:
                yield kind, holder[prefix + kind]
        if holder.get("structural_tag") is not None:
            yield "structural_tag", holder["structural_tag"]
    text = body.get("text")
    for form in (body.get("response_format"), text.get("format") if isinstance(text, dict) else None):
        if isinstance(form, dict):
            schema = form.get("json_schema")
            if isinstance(schema, dict):
                yield "json", schema.get("schema", schema)
            elif isinstance(form.get("schema"), dict):
                yield "json", form["schema"]
            if form.get("type") == "structural_tag":
                yield "structural_tag", form
            if isinstance(form.get("grammar"), str):
                yield "grammar", form["grammar"]
    for tool in body.get("tools") or () if isinstance(body.get("tools"), list) else ():
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if isinstance(function, dict) and isinstance(function.get("parameters"), dict):
            yield "json", function["parameters"]


def _check_structure(kind: str, specification: Any, bounds: Bounds) -> None:
    if kind == "choice":
        entries = len(specification) if isinstance(specification, list) else 0
        if entries > bounds.schema_values:
            raise Refused(f"Offer at most {bounds.schema_values} choices: {entries} came.")
    text = specification if isinstance(specification, str) else json.dumps(specification)
    limit_kib = bounds.regex_kib if kind == "regex" else bounds.schema_kib
    size = len(text.encode(errors="replace"))
    if size > limit_kib << 10:
        raise Refused(
            f"Make the {kind} of the structured output smaller: {limit_kib} KiB are taken, {size >> 10} came."
        )
    if kind in ("json", "structural_tag") and isinstance(specification, str):
        specification = _check_text(specification, f"the {kind}", bounds)
    if kind == "json":
        _check_schema(specification, bounds)


def _check_schema(schema: Any, bounds: Bounds) -> None:
    values = 0
    stack = [schema]
    while stack:
        one = stack.pop()
        if isinstance(one, list):
            stack.extend(one)
        elif isinstance(one, dict):
            enumeration, pattern = one.get("enum"), one.get("pattern")
            values += len(enumeration) if isinstance(enumeration, list) else 0
            if isinstance(pattern, str) and len(pattern) > bounds.regex_kib << 10:
                raise Refused(f"Shorten the pattern in the schema: {bounds.regex_kib} KiB are taken.")
            stack.extend(one.values())
    if values > bounds.schema_values:
        raise Refused(f"Name at most {bounds.schema_values} values in the schema's enumerations: {values} came.")
