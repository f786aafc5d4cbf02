"""What each option of vLLM's server does on Ascend: one table, from which the pages are written.

`python -m ascend_facts.serve_flags` rewrites docs/serve-flags.md and docs/zh/serve-flags.md of a checkout.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from ascend_facts import pages
from ascend_facts.pages import Language

Verdict = Literal["works", "no effect", "refused", "not tried"]

PAGES: dict[Language, str] = {"en": "serve-flags.md", "zh": "zh/serve-flags.md"}
INTRODUCTION: dict[Language, str] = {
    "en": """\
# Options of `vllm serve`

Every option of vLLM 0.33's server, as it is with this plugin on emulated chips. *works*: the named test uses it and
looks at what comes of it; *no effect*: accepted, and nothing follows; *refused*: one sentence before weights are read
says what to do instead; *not tried*: nobody has looked, so nothing is promised. Written from
`src/ascend_facts/serve_flags.toml`, which tests hold equal to vLLM's own parser; each refusal is run by
`tests/emulated/test_serve_flags.py`. 中文：[`vllm serve` 的参数](zh/serve-flags.md).
""",
    "zh": """\
# `vllm serve` 的参数

vLLM 0.33 服务器的全部参数，以及它们在本插件（模拟芯片）上的情况。*可用*：所列测试使用它并检查结果；*无作用*：接受但
不产生任何影响；*拒绝*：在读取权重之前用一句话说明该怎么做；*未试*：没有人试过，不作承诺。本页由
`src/ascend_facts/serve_flags.toml` 生成，有测试保证与 vLLM 的解析器一致；每条拒绝都由
`tests/emulated/test_serve_flags.py` 实际运行。English: [options of `vllm serve`](../serve-flags.md).
""",
}
COLUMNS: dict[Language, str] = {"en": "| option | | which | tested by |", "zh": "| 参数 | | 说明 | 测试 |"}
BESIDE: dict[Language, str] = {"en": "## What has no option of its own", "zh": "## 没有对应参数的功能"}
VERDICTS: dict[Language, dict[Verdict, str]] = {
    "en": {"works": "works", "no effect": "no effect", "refused": "refused", "not tried": "not tried"},
    "zh": {"works": "可用", "no effect": "无作用", "refused": "拒绝", "not tried": "未试"},
}
REFUSALS_TEST = "tests/emulated/test_serve_flags.py::test_refusals"


@dataclass(frozen=True, slots=True)
class Row:
    """An option, or a feature without one, and how that is known."""

    name: str
    verdict: Verdict
    tested_by: tuple[str, ...] = ()
    refused_with: tuple[str, ...] = ()  # arguments of `vllm serve`
    says: str = ""  # what the refusal contains
    chip: str = ""  # where it is refused; empty: everywhere
    en: str = ""
    zh: str = ""

    def tests(self) -> tuple[str, ...]:
        return (*self.tested_by, REFUSALS_TEST) if self.refused_with else self.tested_by


def _rows(kind: str) -> tuple[Row, ...]:
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return tuple(
        Row(
            name=entry["name"],
            verdict=entry["verdict"],
            tested_by=tuple(entry.get("tested_by", ())),
            refused_with=tuple(entry.get("refused_with", ())),
            **{field: entry[field] for field in ("says", "chip", "en", "zh") if field in entry},
        )
        for entry in table[kind]
    )


@cache
def flags() -> tuple[Row, ...]:
    return _rows("flag")


@cache
def features() -> tuple[Row, ...]:
    """What vLLM offers without an option of its server."""
    return _rows("feature")


def render(language: Language) -> str:
    """The page in one language."""
    verdicts = VERDICTS[language]
    counts = Counter(row.verdict for row in flags())
    summary = ", ".join(f"{counts[verdict]} {word}" for verdict, word in verdicts.items())
    lines = [INTRODUCTION[language], f"{len(flags())}: {summary}.", ""]
    for title, rows, quote in (("", flags(), "`"), (BESIDE[language], features(), "")):
        lines += [title, ""] if title else []
        lines += [COLUMNS[language], "| --- | --- | --- | --- |"]
        for row in rows:
            note = row.en if language == "en" else row.zh
            tests = " ".join(f"`{test}`" for test in row.tests())
            lines.append(f"| {quote}{row.name}{quote} | {verdicts[row.verdict]} | {note} | {tests} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    pages.write(PAGES, render)
