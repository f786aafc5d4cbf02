"""Environment variables that this repository's packages read or set: one table, from which the pages are written.

`python -m ascend_facts.environment` rewrites docs/environment.md and docs/zh/environment.md of a checkout.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from ascend_facts import pages
from ascend_facts.pages import Language

Package = Literal["plugin", "command line", "emulator"]
Access = Literal["reads", "sets where unset", "sets", "passes on"]

PAGES: dict[Language, str] = {"en": "environment.md", "zh": "zh/environment.md"}

INTRODUCTION: dict[Language, str] = {
    "en": """\
# Environment variables

Nothing here has to be set: without any of them a chip, real or emulated, is found and served. Written from
`src/ascend_facts/environment.toml`, which a test holds equal to the sources. Variables of vLLM, torch_npu and CANN that
this repository does not touch keep their meaning and are not listed. 中文：[环境变量](zh/environment.md).
""",
    "zh": """\
# 环境变量

这些变量都不是必须的：不设置任何一个，也能找到（真实或模拟的）芯片并提供服务。本页由
`src/ascend_facts/environment.toml` 生成，并有测试保证与源码一致。vLLM、torch_npu 和 CANN 的其他变量含义不变，不在此列。
English: [environment variables](../environment.md).
""",
}
TITLES: dict[Language, dict[Package, str]] = {
    "en": {"plugin": "The plugin", "command line": "The `ascend` command", "emulator": "The emulator"},
    "zh": {"plugin": "插件", "command line": "`ascend` 命令", "emulator": "模拟器"},
}
COLUMNS: dict[Language, str] = {"en": "| variable | | default | meaning |", "zh": "| 变量 | | 默认 | 含义 |"}
ACCESSES: dict[Language, dict[Access, str]] = {
    "en": {"reads": "read", "sets where unset": "set where unset", "sets": "set", "passes on": "passed on"},
    "zh": {"reads": "读取", "sets where unset": "未设置时设置", "sets": "设置", "passes on": "传给子进程"},
}


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable: which package uses it, how, and what it means in each language."""

    name: str
    package: Package
    access: Access
    default: str  # empty: nothing
    en: str
    zh: str


@cache
def variables() -> tuple[Variable, ...]:
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return tuple(Variable(**entry) for entry in table["variable"])


def render(language: Language) -> str:
    """The page in one language."""
    lines = [INTRODUCTION[language]]
    for package, title in TITLES[language].items():
        lines += [f"## {title}", "", COLUMNS[language], "| --- | --- | --- | --- |"]
        for variable in variables():
            if variable.package == package:
                default = f"`{variable.default}`" if variable.default else ""
                meaning = variable.en if language == "en" else variable.zh
                lines.append(f"| `{variable.name}` | {ACCESSES[language][variable.access]} | {default} | {meaning} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    pages.write(PAGES, render)
