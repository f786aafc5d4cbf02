"""The part of docs/models.md that the registry's results and the names of releases make."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ascend_facts.model_results import ModelResult
from ascend_facts.registry_results import OUTCOMES, RegistryResult, Results, counts, share_right
from conformance.registry import media_rows
from conformance.registry.names import registered
from conformance.table_texts import Language

Rows = Mapping[tuple[str, str], ModelResult]

TITLES: Mapping[Language, Mapping[str, str]] = {
    "en": {
        "releases": "## Releases by name",
        "releases text": (
            "A release stands where its structure stands: in a row of the tables below, or in the registry's run.\n"
            "`ascend models NAME` answers for any name, and for the folder of a checkpoint."
        ),
        "release": "release",
        "structure": "its structure",
        "registry": "## Every architecture of vLLM's registry",
        "registry text": (
            "`python -m conformance registry` makes a tiny checkpoint for each architecture of vLLM's registry that\n"
            "transformers can build, from its configuration class's own defaults scaled down, and runs it once on each\n"
            "chip: prompts, a prompt in chunks, a prefix from the cache, decoding in graphs. Judged as the rows below.\n"
            "Architectures that read pictures, films or sounds are counted from their rows below: they are not run again."
        ),
        "chip": "chip",
        "kind": "kind",
        "share": "right of those that can be built",
        "architecture": "architecture",
        "reasons": "What is not right, and why:",
        "faults": "Deliberate faults that were caught:",
        "evidence": "## What stands behind a result",
        "evidence text": (
            "1. **Run here, checked against float32**: every table of this page.\n"
            "2. **Served end to end** (HTTP server, streaming, tools or pooling routes, on emulated chips): {served}.\n"
            "3. **Seen on a card**: nothing yet. Whoever runs `python -m conformance --here` on a card is asked to\n"
            "   send the file that it writes."
        ),
    },
    "zh": {
        "releases": "## 按发布名查找",
        "releases text": (
            "一个发布版本的状态由它的结构决定：见下面表格中的行，或注册表的运行结果。\n"
            "`ascend models NAME` 可以回答任何名称，也可以回答一个权重目录。"
        ),
        "release": "发布版本",
        "structure": "结构",
        "registry": "## vLLM 注册表中的所有结构",
        "registry text": (
            "`python -m conformance registry` 对 vLLM 注册表中 transformers 能构建的每种结构，用其配置类的默认值缩小后\n"
            "生成一个小权重，在每种芯片上运行一次：提示、分块的提示、来自缓存的前缀、图模式解码。判断方法与下面的行相同。\n"
            "读取图片、视频或声音的结构按下面表格中的行计数，不再重复运行。"
        ),
        "chip": "芯片",
        "kind": "类别",
        "share": "在可构建的结构中正确的比例",
        "architecture": "结构",
        "reasons": "不正确的条目及原因：",
        "faults": "被发现的故意错误：",
        "evidence": "## 结果背后的证据",
        "evidence text": (
            "1. **在此运行，与 float32 比较**：本页的所有表格。\n"
            "2. **端到端服务**（HTTP 服务、流式输出、工具调用或向量接口，在模拟芯片上）：{served}。\n"
            "3. **在真实板卡上见过**：还没有。欢迎在板卡上运行 `python -m conformance --here` 并发来它写出的文件。"
        ),
    },
}
OUTCOMES_ZH = {
    "right": "正确",
    "refused": "拒绝",
    "neither": "出错",
    "wrong": "错误",
    "not run": "尚未运行",
    "not built": "未构建",
}
KINDS_ZH = {"text generation": "文本生成", "pooling": "向量与排序", "multimodal": "多模态"}
# Rows whose structure a test serves over HTTP, and the test.
SERVED = {
    "qwen3": "tests/end_to_end/test_server.py",
    "qwen3_5": "tests/models/test_qwen3_5_served.py",
    "qwen3-embedding": "tests/models/test_pooling_served.py",
    "bert-classifier": "tests/models/test_pooling_served.py",
}


@cache
def releases() -> list[dict[str, Any]]:
    package = find_spec("ascend_cli")
    if package is None or not package.submodule_search_locations:
        raise ImportError("ascend_cli is not installed.")
    path = Path(package.submodule_search_locations[0]) / "models" / "structures.toml"
    return [entry for entry in tomllib.loads(path.read_text(encoding="utf-8"))["releases"] if entry.get("names")]


def evidence(language: Language) -> str:
    texts = TITLES[language]
    served = ", ".join(f"`{name}`" for name in SERVED)
    return "\n".join([texts["evidence"], "", texts["evidence text"].format(served=served), ""])


def named_releases(rows: Rows, registry: Results, language: Language) -> str:
    """A line for each release, with what its structure came to on each chip."""
    texts = TITLES[language]
    chips = sorted({chip for _, chip in (*rows, *registry)})
    lines = [texts["releases"], "", texts["releases text"], ""]
    lines.append(f"| {texts['release']} | {texts['structure']} | " + " | ".join(chips) + " |")
    lines.append("|---" * (len(chips) + 2) + "|")
    for entry in releases():
        structure = entry["rows"][0] if entry["rows"] else entry["architecture"]
        cells = [_standing(structure, chip, rows, registry, language) for chip in chips]
        lines.append(f"| {', '.join(entry['names'])} | `{structure}` | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _standing(structure: str, chip: str, rows: Rows, registry: Results, language: Language) -> str:
    if (row := rows.get((structure, chip))) is not None:
        return _outcome(media_rows.outcome_of_rows([row])[0], language)
    result = registry.get((structure, chip))
    return "" if result is None else _outcome(result.outcome, language)


def _outcome(outcome: str, language: Language) -> str:
    word = OUTCOMES_ZH[outcome] if language == "zh" else outcome
    return f"**{word}**" if outcome in ("wrong", "neither") else word


def registry_section(registry: Results, language: Language, rows: Rows) -> str:
    """The count, with the architectures that have media from their rows, a line for each other one, and the reasons."""
    if not registry:
        return ""
    texts = TITLES[language]
    chips = sorted({row.chip for row in registry.values()})
    lines = [texts["registry"], "", texts["registry text"], ""]
    words = [_outcome(outcome, language).strip("*") for outcome in OUTCOMES]
    lines.append(f"| {texts['chip']} | {texts['kind']} | " + " | ".join(words) + f" | {texts['share']} |")
    lines.append("|---" * (len(words) + 3) + "|")
    known = {name: str(kind) for name, (kind, *_) in registered().items()} | media_rows.kinds()
    everything = [*registry.values(), *media_rows.media_results(rows.values(), chips)]
    for (chip, kind), counted in counts(everything, known).items():
        kind = KINDS_ZH.get(kind, kind) if language == "zh" else kind
        numbers = " | ".join(str(counted[outcome]) for outcome in OUTCOMES)
        lines.append(f"| {chip} | {kind} | {numbers} | {share_right(counted):.0%} |")
    lines += ["", f"| {texts['architecture']} | " + " | ".join(chips) + " |", "|---" * (len(chips) + 1) + "|"]
    for name in dict.fromkeys(row.name for row in registry.values()):
        cells = [_registry_cell(registry.get((name, chip)), language) for chip in chips]
        if any(cells):
            lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_reasons(registry, texts), *_caught(registry, texts)])


def _registry_cell(row: RegistryResult | None, language: Language) -> str:
    if row is None or row.outcome == "not built":
        return ""
    number = f" {row.typical:.1f}" if row.typical is not None and row.outcome in ("right", "wrong") else ""
    notes = f" ({', '.join(row.notes)})" if row.notes else ""
    return _outcome(row.outcome, language) + number + notes


def _reasons(registry: Results, texts: Mapping[str, str]) -> list[str]:
    by_reason: dict[tuple[str, str], list[str]] = {}
    for row in registry.values():
        if row.outcome not in ("right", "not built"):
            by_reason.setdefault((row.name, row.detail), []).append(row.chip)
    lines = [f"* `{name}` ({', '.join(chips)}): {detail}" for (name, detail), chips in by_reason.items()]
    return [texts["reasons"], "", *lines, ""] if lines else []


def _caught(registry: Results, texts: Mapping[str, str]) -> list[str]:
    lines = [
        f"* `{row.name}` ({row.chip}): "
        + ", ".join(f"{name}{'' if found else ' **missed**'}" for name, found in row.faults.items())
        for row in registry.values()
        if row.faults
    ]
    return [texts["faults"], "", *lines, ""] if lines else []
