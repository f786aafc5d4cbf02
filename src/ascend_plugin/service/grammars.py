"""Trial of a request's grammars in a process of their own, within a time and a memory, before the engine compiles one.

xgrammar cannot be interrupted, and the engine compiles the grammars of all clients in a thread or two: one that
explodes (nested repetition, self-reference, an enumeration) would hold up every later one, and may take all memory.
The trial compiles it as the engine will, in a child that is killed at the bound. What passes is remembered.

`python -m ascend_plugin.service.grammars TOKENIZER SECONDS` is the process that forks those children: it holds the
tokenizer, so that a trial costs a fork. Questions are lines of JSON on standard input, answers lines on standard
output. It imports neither vLLM nor torch_npu.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import resource
import select
import signal
import sys
import time
from collections import OrderedDict
from typing import Any

from ascend_plugin.service.bounds import Refused

MEMORY_BYTES = 1 << 30  # beyond what the forking process has
REMEMBERED = 4096
START_S = 120
WORDS = {"regex": "regular expression", "json": "JSON schema", "structural_tag": "structural tag"}


class GrammarCheck:
    """The front end's side: asks the forking process, which is started with the first question."""

    def __init__(self, tokenizer: str, limit_s: int) -> None:
        self._command = [sys.executable, "-m", __name__, tokenizer, str(limit_s)]
        self._limit_s = limit_s
        self._process: asyncio.subprocess.Process | None = None
        self._ready: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[str]] = {}
        self._asked = 0
        self._known: OrderedDict[str, str] = OrderedDict()

    async def check(self, wanted: list[tuple[str, Any]]) -> None:
        """wanted: kinds and specifications of one request, which has one time for all of them.

        Raises Refused for what takes too long or too much; what does not compile is vLLM's to refuse.
        """
        each = [json.dumps(_as_compiled(kind, specification)) for kind, specification in wanted]
        question = f"[{','.join(dict.fromkeys(each))}]"
        name = hashlib.sha256(question.encode()).hexdigest()
        verdict = self._known.get(name)
        if verdict is None:
            verdict = await self._ask(question)
            self._known[name] = verdict
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        if verdict != "ok":
            kind = wanted[0][0]
            what = (
                f"{WORDS.get(kind, kind)}: it does" if len(wanted) == 1 else f"{len(wanted)} schemas and tools: they do"
            )
            raise Refused(
                f"Simplify the {what} not compile within {self._limit_s} s and {MEMORY_BYTES >> 30} GiB ({verdict})."
            )

    async def _ask(self, question: str) -> str:
        if self._process is None or self._process.returncode is not None:
            await self._start()
        assert self._process is not None and self._process.stdin is not None
        self._asked += 1
        number = self._asked
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(f"{number} {question}\n".encode())
        try:
            return await asyncio.wait_for(answer, START_S)
        except TimeoutError as error:
            raise Refused("Structured output cannot be checked at the moment: send the request again.", 503) from error
        finally:
            self._waiting.pop(number, None)

    async def _start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "ASCEND_EMULATOR": "0"},  # it needs no chip
            limit=1 << 20,
        )
        self._ready = asyncio.get_running_loop().create_task(self._read(self._process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            number, _, verdict = line.decode().strip().partition(" ")
            answer = self._waiting.get(int(number)) if number.isdigit() else None
            if answer is not None and not answer.done():
                answer.set_result(verdict)
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(Refused("Structured output cannot be checked: send the request again.", 503))


def _as_compiled(kind: str, specification: Any) -> tuple[str, Any]:
    """What vLLM makes of choices and of the two notations of grammars."""
    from vllm.v1.structured_output.utils import choice_as_grammar, grammar_is_likely_lark

    if kind == "choice" and isinstance(specification, list) and all(isinstance(one, str) for one in specification):
        return "grammar", choice_as_grammar(specification)
    if kind == "grammar" and isinstance(specification, str) and grammar_is_likely_lark(specification):
        return "lark", specification
    return kind, specification


# ------------------------------------------------------------------ the forking process


def compile_one(compiler: Any, kind: str, specification: Any) -> None:
    """As vllm.v1.structured_output.backend_xgrammar compiles it. Raises whatever xgrammar does."""
    text = specification if isinstance(specification, str) else json.dumps(specification)
    if kind == "json":
        compiler.compile_json_schema(text)
    elif kind == "regex":
        compiler.compile_regex(text)
    elif kind == "lark":
        compiler.compile_lark(text)
    elif kind == "grammar":
        compiler.compile_grammar(text)
    else:
        compiler.compile_structural_tag(text)


def _child(compiler: Any, line: str, limit_s: int) -> int:
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 1))
    used = _address_space()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for kind, specification in json.loads(line):
        try:
            compile_one(compiler, kind, specification)
        except MemoryError:
            return 2
        except Exception:  # what is no grammar at all: vLLM says so better, or has another backend for it
            continue
    return 0


def _address_space() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def main() -> None:
    tokenizer, limit_s = sys.argv[1], int(sys.argv[2])
    import xgrammar
    from transformers import AutoTokenizer

    info = xgrammar.TokenizerInfo.from_huggingface(AutoTokenizer.from_pretrained(tokenizer))
    compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
    serve(compiler, limit_s)


def serve(compiler: Any, limit_s: int) -> None:
    """Fork a child for each request's question; end with the front end, whose end of the pipe closes."""
    running: dict[int, tuple[str, float]] = {}
    buffer = b""
    while True:
        readable, _, _ = select.select([0], [], [], 0.02 if running else None)
        if readable:
            part = os.read(0, 1 << 16)
            if not part:
                for pid in running:
                    os.kill(pid, signal.SIGKILL)
                return
            *lines, buffer = (buffer + part).split(b"\n")
            for line in lines:
                number, _, question = line.decode().partition(" ")
                pid = os.fork()
                if pid == 0:
                    os._exit(_child(compiler, question, limit_s))
                running[pid] = (number, time.monotonic() + 4 * limit_s)
        for pid, (number, deadline) in list(running.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del running[pid]
                print(number, _verdict(status), flush=True)
            elif time.monotonic() > deadline:  # starved of the processor, or asleep
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _verdict(status: int) -> str:
    if os.WIFSIGNALED(status):
        out_of_time = os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
        return "out of time" if out_of_time else f"the compiler crashed: {signal.Signals(os.WTERMSIG(status)).name}"
    return {0: "ok", 2: "out of memory"}.get(os.WEXITSTATUS(status), "the compiler failed")


if __name__ == "__main__":
    main()
