"""docs/hardware.md and its Chinese page, written from the operator table, the evidence and the text around them.

`python -m ascend_facts.operators_page` rewrites both in a checkout; a test compares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ascend_facts import operators, pages
from ascend_facts.operators import FAMILIES, Evidence, Form, Operator
from ascend_facts.pages import Language

PAGES: dict[Language, str] = {"en": "hardware.md", "zh": "zh/hardware.md"}
TEXTS = Path(__file__).with_name("operators_page_texts")  # what people wrote: NAME.LANGUAGE.md
NAMES = {"310p": "310P", "910b": "910B", "910_93": "A3", "950": "950"}
LEVELS: dict[Language, dict[str, str]] = {
    "en": {
        operators.SILICON: "on a card",
        operators.PROVEN: "others",
        operators.DOCUMENTED: "documented",
        operators.AGAINST: "not documented",
        operators.UNKNOWN: "unknown",
    },
    "zh": {
        operators.SILICON: "实卡",
        operators.PROVEN: "他人",
        operators.DOCUMENTED: "有文档",
        operators.AGAINST: "文档未列",
        operators.UNKNOWN: "未知",
    },
}
WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "runs": "| chip | CANN | driver | date | cases right | of | findings |",
        "none": "None yet: no result of a card has been imported.",
        "forms": "| operator | types and formats | ranks | {chips} | limits |",
        "count": "{forms} forms of {operators} operators: {by_family}.",
        "sources": "| operator | document supports | document | source | enforced by |",
        "others": "| operator | chip | run by |",
        "unknown": "unknown",
        "table": "## The table",
        "where": "## Where it is said, and what enforces it",
        "who": "## Run on the silicon by others",
        "cards": "## Results of cards",
    },
    "zh": {
        "runs": "| 芯片 | CANN | 驱动 | 日期 | 正确用例 | 总数 | 发现 |",
        "none": "还没有：尚未导入任何实卡结果。",
        "forms": "| 算子 | 类型与格式 | 维数 | {chips} | 限制 |",
        "count": "共 {operators} 个算子、{forms} 种形式：{by_family}。",
        "sources": "| 算子 | 文档支持 | 文档 | 源码 | 由何测试保证 |",
        "others": "| 算子 | 芯片 | 运行者 |",
        "unknown": "未知",
        "table": "## 算子表",
        "where": "## 出处与保证它的测试",
        "who": "## 他人在硬件上运行的",
        "cards": "## 实卡结果",
    },
}


def render(language: Language) -> str:
    """The page in one language."""
    table = sorted(operators.operators().values(), key=lambda operator: operator.name)
    runs = operators.evidence()
    words = WORDS[language]
    lines = [_text("introduction", language), "", words["cards"], "", *_runs(runs, words), ""]
    lines += [words["table"], "", _text("levels", language), "", _count(table, words), ""]
    lines += [*_forms(table, runs, language), ""]
    lines += [words["who"], "", *_others(table, words), ""]
    lines += [words["where"], "", *_sources(table, words), "", _text("rest", language)]
    return "\n".join(lines) + "\n"


def _text(name: str, language: Language) -> str:
    return (TEXTS / f"{name}.{language}.md").read_text(encoding="utf-8").strip()


def _rule(header: str) -> str:
    return "|" + " --- |" * (header.count("|") - 1)


def _runs(runs: Sequence[Evidence], words: dict[str, str]) -> Iterator[str]:
    if not runs:
        yield words["none"]
        return
    yield words["runs"]
    yield _rule(words["runs"])
    for run in runs:
        found = ", ".join(run.findings) or "-"
        yield f"| {run.soc} | {run.cann} | {run.driver} | {run.date} | {run.right} | {run.cases} | {found} |"


def _count(table: Sequence[Operator], words: dict[str, str]) -> str:
    forms = [form for operator in table for form in operator.forms]
    each = ", ".join(f"{NAMES[family]} {sum(family in form.families for form in forms)}" for family in FAMILIES)
    return words["count"].format(forms=len(forms), operators=len(table), by_family=each)


def _forms(table: Sequence[Operator], runs: Sequence[Evidence], language: Language) -> Iterator[str]:
    """One row a form; the operator's name and limits in its first."""
    header = WORDS[language]["forms"].format(chips=" | ".join(NAMES[family] for family in FAMILIES))
    seen = operators.seen_on_silicon(runs)
    yield header
    yield _rule(header)
    for operator in table:
        limits = operator.limits if language == "en" else operator.limits_zh
        for number, form in enumerate(operator.forms):
            levels = [
                LEVELS[language][operator.level(family, seen)] if family in form.families else "-"
                for family in FAMILIES
            ]
            first = (operator.name, limits) if number == 0 else ("", "")
            yield f"| {first[0]} | {form.tensors} | {_ranks(form)} | {' | '.join(levels)} | {first[1]} |"


def _ranks(form: Form) -> str:
    """Ranks of the tensors; of many, the first and how many more."""
    shown = "; ".join(form.layouts[:2])
    return shown if len(form.layouts) <= 2 else f"{shown}; +{len(form.layouts) - 2}"


def _others(table: Sequence[Operator], words: dict[str, str]) -> Iterator[str]:
    yield words["others"]
    yield _rule(words["others"])
    for operator in table:
        for family, who in operator.proven.items():
            yield f"| {operator.name} | {NAMES[family]} | {who} |"


def _sources(table: Sequence[Operator], words: dict[str, str]) -> Iterator[str]:
    yield words["sources"]
    yield _rule(words["sources"])
    for operator in table:
        supports = ", ".join(NAMES[family] for family in operator.documented) if operator.document else words["unknown"]
        document, source = operator.document or words["unknown"], operator.source or words["unknown"]
        yield f"| {operator.name} | {supports} | {document} | {source} | `{operator.test}` |"


if __name__ == "__main__":
    pages.write(PAGES, render)
