"""Writes docs/reliability.md and its Chinese twin from what a run counted: `python -m tests.reliability.report` again.

The first table is as the run counted it. The second is of `long_runs.toml`: runs too long for every time, each as its
command printed it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .results import Kept, counts, merge

DOCS = Path(__file__).resolve().parents[2] / "docs"
LONG_RUNS = Path(__file__).with_name("long_runs.toml")


@dataclass(frozen=True)
class Item:
    """One of R1 to R16, and what decides it."""

    english: str
    chinese: str
    elsewhere: str = ""  # tests of it that are not in this battery


ITEMS = {
    "R1": Item("requests generated from the API's description", "按接口描述生成的请求"),
    "R2": Item("hostile bodies, headers and clients", "恶意的请求体、请求头和客户端"),
    "R3": Item("clients that go away", "中途断开的客户端"),
    "R4": Item("long mixed load, in the timing clock", "长时间混合负载（计时时钟）"),
    "R5": Item("memory, operators and chips that fail", "内存、算子、芯片故障"),
    "R6": Item("killed processes", "进程被杀"),
    "R7": Item("ranks that stall, sleep or are slow", "停住、休眠或变慢的 rank"),
    "R8": Item("broken checkpoints and templates", "损坏的权重和模板"),
    "R9": Item("hostile templates", "恶意模板", "R2, R8"),
    "R10": Item("every route and key", "每条路由与密钥"),
    "R11": Item("a cache too small for all", "缓存放不下全部请求"),
    "R12": Item("the same answers in every company", "答案与同批请求无关", "tests/emulated/test_invariance.py"),
    "R13": Item("an orderly end", "有序结束"),
    "R14": Item("the same run from the same seed", "同一种子得到同一过程"),
    "R15": Item("rendered deployments", "生成的部署文件", "tests/unit/cli/test_deploy_safety.py, test_dockerfile.py"),
    "R16": Item("poor machines", "条件差的机器"),
}
# What is counted, in Chinese. A count that is missing here fails the writing, so that the pages stay twins.
CHINESE = {
    "routes": "路由",
    "requests": "请求",
    "answered 2xx": "应答 2xx",
    "answered 3xx": "应答 3xx",
    "answered 4xx": "应答 4xx",
    "answered 501": "应答 501",
    "hostile bodies refused": "被拒绝的恶意请求体",
    "growth of the front end, MiB": "前端进程内存增长（MiB）",
    "odd bodies answered in bounded time": "在限定时间内应答的异常请求体",
    "slow, idle and deaf connections": "慢速、空闲、不读取的连接",
    "oversized bodies and headers": "过大的请求体和请求头",
    "streams cancelled at random tokens": "在随机词元处取消的流",
    "tokens received before": "取消前收到的词元",
    "engine steps soaked": "引擎步数",
    "requests finished": "完成的请求",
    "requests aborted": "中止的请求",
    "preemptions": "抢占次数",
    "memory slope, MiB in a million steps": "内存斜率（MiB／百万步）",
    "faults of allocation, launch and chip injected": "注入的分配、启动、芯片故障",
    "told while it was opened": "打开芯片时说明的故障",
    "told while weights were loaded": "加载权重时说明的故障",
    "told while memory was measured": "测量内存时说明的故障",
    "told while the KV cache was allocated": "分配 KV 缓存时说明的故障",
    "told while graphs were captured": "捕获图时说明的故障",
    "told while a step was computed": "计算一步时说明的故障",
    "told while tokens were sampled": "采样时说明的故障",
    "processes killed under load": "负载下被杀的进程",
    "starts interrupted": "被打断的启动",
    "collectives stalled": "停住的集合通信",
    "slow ranks waited for": "等待的慢 rank",
    "ranks stopped": "被停止的 rank",
    "broken checkpoints refused": "被拒绝的损坏权重",
    "checkpoints that vLLM refuses told in the last line": "由 vLLM 拒绝、在最后一行说明的权重",
    "combinations of route and key": "路由与密钥的组合",
    "requests preempted": "被抢占的请求",
    "answers compared": "比较的答案",
    "largest gap at a first difference, nat": "首个差异处的最大差距（nat）",
    "streams finished after a signal": "收到信号后完成的流",
    "streams cut at the bound and told": "到时限被切断并告知的流",
    "streams cut by a second signal and told": "被第二个信号切断并告知的流",
    "steps replayed, same tokens, schedule and counters": "重放的步数（词元、调度、计数器相同）",
    "layouts of poor machines": "条件差的机器布局",
    "renderings whose grace fits the drain": "宽限期足够的部署文件",
    "rendered containers served, read-only and unprivileged": "以只读、非特权方式运行并应答的容器",
}
HEAD = {
    "en": """\
# Reliability

What a service would be held to, tried on emulated chips with seeded faults. Written by the run itself:
`make test-reliability` ({passed} tests passed, {failed} failed, {skipped} skipped; runs that are told here: {runs}).
Each test names the change that makes it fail (`@pytest.mark.breaks` in `tests/reliability`), and
`python -m tests.reliability.breaks` makes each of them in a copy and demands that the test fails.
中文：[可靠性](zh/reliability.md).

An empty cell has not been run. Zero wrong answers and zero lost requests are part of every test that passed; one that
fails is in the last column.

| | | counted | also in | failed |
| --- | --- | --- | --- | --- |
""",
    "zh": """\
# 可靠性

按对线上服务的要求，在模拟芯片上用带种子的故障逐项试验。本页由运行本身写出：`make test-reliability`
（通过 {passed} 项，失败 {failed} 项，跳过 {skipped} 项；本页汇总的运行次数：{runs}）。
每个测试都写明哪一处改动会使它失败（`tests/reliability` 中的 `@pytest.mark.breaks`），
`python -m tests.reliability.breaks` 会在副本中逐一作出改动，并要求测试失败。
English: [reliability](../reliability.md).

空格表示没有运行。每个通过的测试都要求没有错误答案、没有丢失的请求；失败的测试列在最后一列。

| | | 计数 | 另见 | 失败 |
| --- | --- | --- | --- | --- |
""",
}
LONG = {
    "en": """
What takes longer is run by itself, and told as its command printed it:

| | seen | command | commit |
| --- | --- | --- | --- |
""",
    "zh": """
耗时更长的项目单独运行，按命令打印的结果记录：

| | 结果 | 命令 | 提交 |
| --- | --- | --- | --- |
""",
}
TAIL = {
    "en": """
Not covered here: a real chip (`ascend doctor --probe` is for that), several machines, headers that trickle (the
rendered proxy ends those; uvicorn has no limit for them). Faults of vLLM's own, and what was done about them:
[upstream](upstream/shutdown.md).
""",
    "zh": """
这里没有覆盖：真实芯片（见 `ascend doctor --probe`）、多台机器、逐字节发送的请求头
（生成的代理会断开它们；uvicorn 没有相应的限制）。vLLM 自身的缺陷以及处理办法：[upstream](../upstream/shutdown.md)。
""",
}


def write(kept: Mapping[str, Kept]) -> list[Path]:
    """Both pages. Raises KeyError for a count without its Chinese."""
    written = []
    found = counts(dict(kept))
    outcomes = [one.outcome for one in kept.values()]
    failed = [name for name, one in kept.items() if one.outcome == "failed"]
    for language, place in (("en", DOCS), ("zh", DOCS / "zh")):
        rows = "".join(_row(name, item, found.get(name, {}), failed, language) for name, item in ITEMS.items())
        head = HEAD[language].format(
            passed=outcomes.count("passed"),
            failed=len(failed),
            skipped=outcomes.count("skipped"),
            runs=len({one.run for one in kept.values()}),
        )
        path = place / "reliability.md"
        path.write_text(head + rows + LONG[language] + _long_runs(language) + TAIL[language], encoding="utf-8")
        written.append(path)
    return written


def _row(name: str, item: Item, counted: Mapping[str, float], failed: list[str], language: str) -> str:
    cells = [f"{_number(value)} {what if language == 'en' else CHINESE[what]}" for what, value in counted.items()]
    words = item.english if language == "en" else item.chinese
    shown = ", ".join(test.rsplit("::", 1)[1] for test in failed if name in _items(test))
    return f"| {name} | {words} | {'; '.join(cells)} | {item.elsewhere} | {shown} |\n"


def _long_runs(language: str) -> str:
    runs = tomllib.loads(LONG_RUNS.read_text(encoding="utf-8"))["run"]
    lines = (
        f"| {one[language]} | {one[f'seen_{language}']} | `{one['command']}` | {one['commit']} |\n" for one in runs
    )
    return "".join(lines)


def _items(test: str) -> list[str]:
    """R1 to R16 as the module's first line names them."""
    file = Path(__file__).resolve().parents[2] / test.split("::")[0]
    return re.findall(r"R\d+", file.read_text(encoding="utf-8").splitlines()[0])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"


if __name__ == "__main__":
    for page in write(merge()):
        print(f"wrote {page}")
