"""The page on fidelity in Chinese: the English page with its prose and its labels replaced, its numbers kept."""

from __future__ import annotations

import re

from benchmarks._published_bounds import ARRIVALS
from benchmarks._published_model import AFTERWORD, PREFACE

PREFACE_ZH = """# 建模时间的可信度

本页由 `python -m benchmarks published --fidelity docs/fidelity.md` 生成。没有任何内容在真实卡上运行过：
仅有的硬件测量数据是已发布的那组数字。English: [fidelity](../fidelity.md).

## 建模了什么

一个算子的时间，是固定的下发时间，加上字节数、矩阵运算量、向量运算量三者各除以芯片峰值（`chips.toml`）与内核可达比例
（`emulator/src/core/cost.h`）之积后的最大者。集合通信在最后一个 rank 到达后开始，时间为下发、链路延迟，以及字节数除以各 rank
之间最慢链路的带宽。各 stream 自由重叠。主机时间是模拟所在机器的时间除以膨胀系数。

没有考虑：stream 之间的争用、L2 缓存、bank 冲突、降频、HTTP 的开销。

## 依据是什么

可达峰值的比例（`cost.h`）、链路和下发的固定开销（`chips.toml` 中标为 EST 的）都是估计，没有人在这种芯片上测过。已发布的数字也无法
校准它们：并发为 1 时两个模型每层都要 2.0 ms，那些行测到的是主机。它们能给出的是主机下发一次的时间（下发次数按该软件
0.29.0rc1 版在模拟器上计数；已发布的数字来自 0.18.0rc1，其次数未知），以及该版本处理提示时除模型计算之外的开销：每次 prefill
的每一层都重建一个 `[tokens, max_model_len]` 的掩码并等待芯片（读其源码得知，未经测量）。

其中最弱的估计是集合通信的延迟：卡间 25 us，卡内 20 us。在另一种芯片（第一代 910）上，有一份公开的 HCCL 测量：四颗芯片上 10 KB
的 all-reduce 为 0.39 至 0.48 ms，含主机等待（github.com/lvyufeng/PocketLLM，docs/performance/ascend_attention_optimization.md
与 pull request 272）。如果被捕获的 all-reduce 在这里也要这么久，四颗芯片上的 Qwen3-32B 每个 token 会多花 45 至 60 ms。
在卡上运行 `hccl_test` 即可定论。

## 误差
"""

AFTERWORD_ZH = """
并发为 8 的行和离线的行是预测值。只考虑下发时，首 token 时间的误差最大 91 %，离线吞吐的误差最大 670 %；第二个常数是提示在矩阵运算
之外的开销。离线部分剩余的误差，已发布的数字无法给出可以印证的解释。

使我们自己的解码步高于下限的有两点，都是估计。假设内核只能达到带宽的 80 %，因此任何一步都不会低于下限的 1.25 倍；只要下发或集合
通信需要时间，四颗芯片上的 Qwen3-32B 就达不到下限的 80 %。假设每层 12 次下发各需 6 us：28 层就是每 token 2.1 ms，超过
Qwen3-0.6B 下限的三分之一。
"""

ARRIVALS_ZH = """
闭环测试开始时八个提示同时到达，互相等待；之后的提示在前面的请求结束时到达。后来的提示要等正在运行的一步、异步调度已排在其后的
一步，再加上自己的一步：两个解码步和一次 prefill，而单独的请求只有一次 prefill。提示越多，最初八个的影响越小：已发布的数字是 200
个提示、各输出 128 个 token。"""

# English pattern -> Chinese, applied to what is left, in this order.
PHRASES: tuple[tuple[str, str], ...] = (
    (
        r"The model against the published figures: (\d+) us of host time a launch and ([\d.]+) us more for a prompt's "
        r"token in a layer, fitted to the rows so marked",
        r"模型与已发布数字的比较：每次下发占主机 \1 us，提示的每个 token 每层另需 \2 us；由标为“拟合”的行拟合得到",
    ),
    (r"## Ours, modelled, beside the published figures", "## 我们的建模结果与已发布数字"),
    (
        r"Online, median time per output token in ms \((\d+) tokens in, (\d+) out\)",
        r"在线，每输出 token 时间的中位数，ms（输入 \1，输出 \2 个 token）",
    ),
    (
        r"Online, median time to first token in ms \((\d+) tokens in, (\d+) out\)",
        r"在线，首 token 时间的中位数，ms（输入 \1，输出 \2 个 token）",
    ),
    (
        r"Offline, output tokens a second \(1,024 tokens in, 128 out; prompts of ours in brackets, 200 published\)",
        "离线，每秒输出 token 数（输入 1,024，输出 128；括号内为我们的提示数，已发布的为 200）",
    ),
    (
        r"Host time of ours is that of the machine that emulates, divided by the dilation:",
        "我们的主机时间是模拟所在机器的时间除以膨胀系数：",
    ),
    (r"Bounds, with graphs", "目标，图模式"),
    (r"What holds a decode step of one request, in ms", "单个请求的一个解码步由什么构成，ms"),
    (r"The chip's time in a step of one token, (.+): ([\d.]+) ms", r"一个 token 的一步中芯片的时间，\1：\2 ms"),
    (r"The chip's time in a step of (\d+) tokens, (.+): ([\d.]+) ms", r"\1 个 token 的一步中芯片的时间，\2：\3 ms"),
    (r"its bytes at the assumed share of bandwidth", "按假设的带宽比例读取其字节"),
    (r"the chip's whole step", "芯片的整个一步"),
    (r"Qwen3-0.6B, 1 chip: TPOT / floor", "Qwen3-0.6B，1 颗芯片：TPOT / 下限"),
    (r"Qwen3-32B, 4 chips: floor / TPOT", "Qwen3-32B，4 颗芯片：下限 / TPOT"),
    (r"TTFT, 8 requests / 1", "TTFT，8 个请求 / 1 个请求"),
    (r"Qwen3-32B, 4 chips, offline: tokens/s", "Qwen3-32B，4 颗芯片，离线：tokens/s"),
    (r"at most ", "不超过 "),
    (r"at least ", "不低于 "),
    (r"MISSED: one request", "未达到：单个请求"),
    (r"MISSED: (.+?), (\d+) chips, (\d+) prompts", r"未达到：\1，\2 颗芯片，\3 个提示"),
    (r"\| met \|", "| 达到 |"),
    (r"(\d+) prompts of (\d+) \+ (\d+) tokens", r"\1 个提示，各 \2 + \3 个 token"),
    (r"dilation (\d+)", r"膨胀系数 \1"),
    (r", (\d+) chips, ", r"，\1 颗芯片，"),
    (r"online, (\d+) at once", r"在线，并发 \1"),
    (r"\bmodel\b(?= \| (?:error|chips))", "模型"),
    (r"\| row \| figure \|", "| 行 | 指标 |"),
    (r"\| chips \|", "| 芯片 |"),
    (r"\| requests \|", "| 请求 |"),
    (r"\| bound \| limit \| worst \|", "| 目标 | 界限 | 最差 |"),
    (r"\| task \| ms \|", "| 任务 | ms |"),
    (r"\bfitted\b", "拟合"),
    (r"\bpublished\b", "已发布"),
    (r"\bours eager\b", "我们，单算子"),
    (r"\bours graph\b", "我们，图"),
    (r"\broofline\b", "理论上限"),
    (r"\bfloor\b", "下限"),
    (r"\berror\b", "误差"),
    (r"\boffline\b", "离线"),
    (r"\bgraph\b", "图"),
    (r"\beager\b", "单算子"),
    (r"output tokens/s", "输出 tokens/s"),
    (r"nothing was run", "没有运行"),
)


def chinese(page: str) -> str:
    """The Chinese page for an English one as fidelity_page() writes it."""
    kept = {"\0preface\0": PREFACE_ZH, "\0afterword\0": AFTERWORD_ZH, "\0arrivals\0": ARRIVALS_ZH}
    for mark, english in zip(kept, (PREFACE, AFTERWORD, ARRIVALS), strict=True):
        page = page.replace(english, mark)
    for pattern, replacement in PHRASES:
        page = re.sub(pattern, replacement, page)
    for mark, text in kept.items():
        page = page.replace(mark, text)
    return page
