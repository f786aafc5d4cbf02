"""What the table of models says around its numbers, in English and in Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ascend_facts.model_results import FEATURES, Outcome
from conformance.faults import MEANINGS

Language = Literal["en", "zh"]


@dataclass(frozen=True)
class Texts:
    """One language of the page; `{limit}` in the header is the bound of an error over its noise."""

    header: str
    features_title: str
    features: Mapping[str, str]
    outcomes: Mapping[Outcome, str]
    groups: Mapping[str, str]
    row_columns: tuple[str, str, str]  # model, dtype, date
    versions: str
    unrecorded: str  # where a cell does not say its versions
    days: str  # from the first to the last
    faults_section: tuple[str, ...]
    faults: Mapping[str, str]
    fault_columns: tuple[str, str, str, str, str]


ENGLISH = Texts(
    header="""\
# Models

Written by `python -m conformance` from its results; nothing here is filled in by hand. 中文：[模型](zh/models.md).

For every architecture a small checkpoint is made on the spot: the published model's structure (query heads a key head,
head size, norms, biases, tied embeddings, rotary scaling, window, routing) with fewer layers and seeded weights whose
logits say something. vLLM runs it on emulated chips, and each log-probability is compared with transformers in fp32 on
the same tokens. An answer passes if its error stays within {limit} times the rounding noise of the precision, which is
measured on the same model and tokens. The number beside `pass` is the median error in units of that noise: about 1 is
what an honest implementation has. Passing says that the mathematics is right; speed and memory at full size are other
questions. A small figure behind a result says that it is of other versions, which are listed below the chip's tables.
""",
    features_title="What a column shows:",
    features=FEATURES,
    outcomes={"pass": "pass", "refused": "refused", "fails": "**fails**", "impossible": "—"},
    groups={},  # a group's own name, with a capital
    row_columns=("model", "dtype", "date"),
    versions="Versions: {}.",
    unrecorded="not recorded",
    days="{} to {}",
    faults_section=(
        "## Can the check fail?",
        "",
        "Deliberate faults in what the engine was given, and whether the check caught them. Every row of the table has",
        "some (`python -m conformance NAME --only faults`); tried so far:",
    ),
    faults=MEANINGS,
    fault_columns=("family", "model", "chip", "caught", "missed"),
)

CHINESE = Texts(
    header="""\
# 模型

本页由 `python -m conformance` 根据运行结果生成，没有任何手工填写的内容。English: [models](../models.md).

对每种结构，现场生成一个小的权重：结构与已发布的模型一致（每个键头对应的查询头数、头维度、归一化、偏置、词嵌入共享、旋转
位置缩放、窗口、路由），层数较少，权重由固定种子产生，且 logits 有区分度。vLLM 在模拟芯片上运行它，每个对数概率都与
transformers 的 fp32 结果在相同 token 上比较。误差不超过该精度舍入噪声的 {limit} 倍为通过，噪声在同一模型、同一批 token
上测得。`通过` 后面的数字是误差中位数与噪声之比，正确的实现约为 1。通过只说明数学正确；完整尺寸下的速度和内存是另外的
问题。空格表示没有运行过。结果后面的小号数字表示该结果出自其他版本，版本列在该芯片的表格之后。括号里的说明沿用程序输出的英文。
""",
    features_title="各列的含义：",
    features={
        "prefill": "1 至 127 个 token 的提示，每条一步算完",
        "chunked prefill": "129 至 420 个 token 的提示，每次算 256 个，与解码混在一起",
        "prefix cache": "再次发送长提示，开头的块取自缓存",
        "decode, eager": "十二个 token，每步一个，算子逐个下发",
        "decode, graph": "同上，但一步被捕获成图后重放",
        "pooling": "对 24 段 3 至 300 个 token 的文本，各得一个向量或一个分数",
        "TP 2": "以上全部在两颗芯片上运行",
        "EP 2": "专家分布在两颗芯片上",
        "n-gram": "每步从前文猜三个 token，大多数被拒绝",
        "MTP": "由模型自带的多 token 预测层猜测，有接受也有拒绝",
        "LoRA": "同一批里有两个适配器和无适配器的请求，图模式，与合并到权重后的结果比较",
    },
    outcomes={"pass": "通过", "refused": "拒绝", "fails": "**错误**", "impossible": "—"},
    groups={
        "dense": "稠密模型",
        "moe": "混合专家",
        "gated delta net": "门控 delta 网络",
        "pooling": "向量与排序",
        "multimodal": "多模态",
        "quantized": "量化",
    },
    row_columns=("模型", "精度", "日期"),
    versions="版本：{}。",
    unrecorded="未记录",
    days="{} 至 {}",
    faults_section=(
        "## 这个检查会失败吗？",
        "",
        "故意在交给引擎的内容里放入错误，看检查能否发现。表中每一行都有若干个",
        "（`python -m conformance NAME --only faults`）；目前试过的：",
    ),
    faults={
        "rope-theta": "旋转位置编码换了底数",
        "rope-unscaled": "漏掉旋转位置缩放",
        "rope-everywhere": "给本不该有的层加上旋转位置编码",
        "swapped-kv-heads": "查询遇到了另一组的键",
        "flat-qk-norm": "查询和键的归一化没有乘权重",
        "no-bias": "漏掉偏置",
        "shifted-window": "滑动窗口少一个 token",
        "no-soft-cap": "漏掉注意力分数的软上限",
        "swapped-experts": "两个专家互换",
        "wrong-decay": "状态遗忘过快",
        "shifted-positions": "位置嵌入错一位",
        "swapped-scales": "每个输出用了相邻输出的缩放系数",
        "no-offset": "漏掉激活量化的偏移",
        "dropped-sink": "漏掉注意力汇聚（sink）",
        "swapped-latent": "潜在缓存的每个数被读成相邻的数",
        "shifted-convolution": "卷积晚一个 token：窗口状态过期",
        "no-expert-bias": "漏掉专家的偏置",
        "unscaled-experts": "漏掉路由专家的系数",
        "swapped-pictures": "图片、视频或声音彼此错位",
        "shifted-vision-positions": "图块位置错开一位，或把行当作时间",
        "wrong-grid": "图片的行列颠倒",
        "wrong-history": "块末尾之前的 32 个 token 被读错：缓存或状态过期",
    },
    fault_columns=("类别", "模型", "芯片", "发现", "漏掉"),
)

TEXTS: Mapping[Language, Texts] = {"en": ENGLISH, "zh": CHINESE}
