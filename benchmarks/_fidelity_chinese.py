"""The page on fidelity in Chinese: the English page with its prose and its labels replaced, its numbers kept."""

from __future__ import annotations

import re

from benchmarks._published_bounds import ARRIVALS
from benchmarks._published_model import AFTERWORD, MISSES, PREFACE

PREFACE_ZH = """# 建模时间的可信度

本页由 `python -m benchmarks published --fidelity docs/fidelity.md` 生成。本项目没有测量过任何一行：每个测量值都是他人公开的数字。
English: [fidelity](../fidelity.md).

## 建模了什么

一个算子的时间，是最小算子的时间，加上字节数、矩阵运算量、向量运算量三者各除以芯片峰值（`src/ascend_facts/chips.toml`）与内核
可达比例（`src/ascend_facts/time_model.toml`）之积后的最大者。矩阵单元按 16 x 16 的整块和 128 x 256 的分块工作，最后一轮分块时有
核空闲；FRACTAL_NZ 按补齐后的大小读取。矩阵乘从内存读权重；张量能放进二级缓存的向量算子按缓存的速率搬运。按索引读写的算子只计
触及的行；没有 AI 核能执行的算子按 AI CPU 计时。

集合通信在最后一个 rank 到达后开始，形式与 HCCL 的选择相同（其源码中各算子的 `SelectAlg...`，以及文档中的 α-β 公式）。310P 上，
2、4、8 颗芯片、不超过 256 KB 的 all-reduce 是递归倍增：log2 n 步，每步传整个缓冲区；更大的是 2 (n - 1) 步的环。910B 的八颗芯片
全互联：不超过 256 KB 时一步完成，更大时两步，每条链路同时传 1/n。910C 上，每 rank 不超过 512 KB 时由交换机代替全互联，更大时走环。

各 stream 自由重叠；事件带着它那次记录的时间，等待某个值的任务取写入该值的时间；stream 的 1,792 个任务槽占满时主机被阻塞（在
a2a3 上的测量：github.com/hw-native-sys/simpler，issue 1853）。主机时间是模拟所在机器的时间除以膨胀系数。

没有考虑：stream 之间的争用、bank 冲突、降频、HTTP 的开销；行数很多的 float16 矩阵乘超出二级缓存（下表的 10240^3）；softmax、silu
这类函数每个元素需要许多向量指令。

## 依据是什么

`src/ascend_facts/calibration.toml` 每行是一个公开的测量值，附来源以及是否参与拟合。共拟合十个常数（`python -m benchmarks
calibrate`），每个只用少数几行；其余各行由模型预测，其中包括一半以上的引擎行。有三个常数没有对应的测量：910B、910C、950 上集合
通信一步的时间。模拟器的时钟、`ascend plan` 和本页使用同一组常数。
"""

MISSES_ZH = """
哪些行没有预测准，缺什么测量：

* 四颗 A2 上的 Qwen3-32B 与 Qwen3-4B（issue 4656，0.11.0rc2），以及 910B4 上 vllm-ascend 0.11 的三行：这些版本每步的主机时间多于
  0.13.0rc1，而主机常数来自后者；缺少它们空闲时间的剖析。同一模型、同一芯片两周后的数字（pull request 4526）误差在 7 % 以内。
* 并发 90 的 Qwen3-32B W8A8：该数字包含调度、与解码同时进行的分块 prefill 以及闭环的尾部；每 token 时间没有公布。
* 910B4 上 64,000 token 的 MindIE：每 token 40 ms 少于按 800 GB/s 读一遍缓存所需的时间，因此缓存的精度或该型号的带宽与假设不同；
  来源两者都没有说明。
* 910A 上一行的矩阵乘只达到带宽的四分之一，用的是该项目自己的算子；310P 的引擎读权重达到 0.84。在 310P 上计时一次拷贝和一次一行的
  矩阵乘即可定论。
* 910A 上的 HCCL 无论大小和 rank 数都是 0.39 至 0.52 ms，含主机的下发与等待；来源只说空算子为 0.018 ms。这里 310P 的一步为 34 us，
  四颗芯片的 all-reduce 为 69 us；在卡上运行 `hccl_test` 即可定论。
* float16 的 silu 与 softmax 比它们的字节数慢：没有对函数所需的向量指令建模。
"""

AFTERWORD_ZH = """
并发为 8 的行和离线的行，是对一个由主机决定速度的引擎的预测：0.18.0rc1，单算子模式，每次 prefill 的每一层都重建
`[tokens, max_model_len]` 的掩码（读其源码得知，未经测量）。只考虑下发时，首 token 时间的误差最大 91 %，离线吞吐的误差最大 670 %；
第二个常数是提示在矩阵运算之外的开销。离线部分剩余的误差，已发布的数字无法给出可以印证的解释。
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
    (r"## Every measurement", "## 全部测量值"),
    (r"## The published figures of 310P", "## 310P 的已发布数字"),
    (r"(?m)^Operators$", "算子"),
    (r"(?m)^Engines$", "引擎"),
    (
        r"\| chip \| measurement \| figure \| measured \| model \| error \|",
        "| 芯片 | 测量 | 指标 | 测得 | 模型 | 误差 |",
    ),
    (r"predicted, source not found again", "预测，来源未能再次找到"),
    (r"\| predicted \|", "| 预测 |"),
    (r"ms a token", "每 token ms"),
    (r"smallest operator", "最小算子"),
    (r"product of one row, (\d+) MB of weights", r"一行的矩阵乘，权重 \1 MB"),
    (r"best product of a series \(size not stated; 4096\^3 taken\)", "一组矩阵乘中最好的（未说明大小，按 4096^3）"),
    (r"all-reduce of (\d+) KB over (\d+)", r"\2 颗芯片 \1 KB 的 all-reduce"),
    (r"\| (\d+) products ", r"| \1 个矩阵乘 "),
    (r"\| product ", "| 矩阵乘 "),
    (r"int8 product ", "int8 矩阵乘 "),
    (r"(\d+) chips?, (\d+) at once, ", r"\1 颗芯片，并发 \2，"),
    (r"W8A8SC weights, read here as not compressed", "W8A8SC 权重，这里按未压缩计"),
    (r"Held out, operators: ", "未参与拟合的算子："),
    (r"Held out, engines: ", "未参与拟合的引擎："),
    (r" Without the longest series: ", "除去最长的一组："),
    (
        r"(\d+) rows, half of them within (\d+%), (\d+) within 15 %, the worst (\d+%)\.",
        r"\1 行，半数误差在 \2 以内，\3 行在 15 % 以内，最大 \4。",
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
    (r"its bytes at the fitted share of bandwidth", "按拟合的带宽比例读取其字节"),
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
    kept = {
        "\0preface\0": PREFACE_ZH,
        "\0misses\0": MISSES_ZH,
        "\0afterword\0": AFTERWORD_ZH,
        "\0arrivals\0": ARRIVALS_ZH,
    }
    for mark, english in zip(kept, (PREFACE, MISSES, AFTERWORD, ARRIVALS), strict=True):
        page = page.replace(english, mark)
    for pattern, replacement in PHRASES:
        page = re.sub(pattern, replacement, page)
    for mark, text in kept.items():
        page = page.replace(mark, text)
    return page
