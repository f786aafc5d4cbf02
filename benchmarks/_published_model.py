"""The incumbent on the published machine, modelled, and how far each published figure lies from that.

Two constants are fitted, each to a row of concurrency 1; every other figure is predicted with them:

* the host's time for a launch, to the time per output token of Qwen3-0.6B. With it a decode step takes the longer of
  the host's launches and the chip's modelled work;
* what a token of a prompt costs in each layer beside the model's own work, to the time to first token of Qwen3-32B.
  Release 0.18.0rc1 rebuilt a mask of [tokens, max_model_len] in every layer of every prefill and waited for the chip
  (read in its source, attention of 310P; not measured): work that grows with tokens and layers, whatever their width.
"""

from __future__ import annotations

from dataclasses import dataclass

from ascend_cli.bench.results import Latency, Row
from ascend_cli.registry.cards import find_model
from ascend_facts.chips import find
from ascend_facts.roofline import Placement

CHIP = "310P3"

# Launches of the incumbent, of which the published 0.18.0rc1 is an older release: vllm-ascend 0.29.0rc1 in 310P mode,
# eager, one request, counted on the emulator with a 4-layer Qwen3: 74 = 4 * 13 + 22. Two all-reduces a layer, and
# one all-gather of the logits, come with tensor parallelism.
INCUMBENT_LAUNCHES_A_LAYER = 13
INCUMBENT_LAUNCHES_A_STEP = 22
COLLECTIVES_A_LAYER = 2
# vLLM's scheduler puts at most this many tokens into a step of vllm.LLM unless told otherwise.
TOKENS_A_STEP = 8192


@dataclass(frozen=True)
class Prediction:
    """A row of the published figures and what the model says of it; figures in ms, or in output tokens a second."""

    row: str
    figure: str
    published: float
    model: float
    fitted: bool = False

    @property
    def error(self) -> float:
        return self.model / self.published - 1


@dataclass(frozen=True)
class Incumbent:
    """The fitted constants: host time of a launch, and extra time of a prompt's token in a layer; in us."""

    launch_us: float
    prompt_token_us: float = 0.0

    def host_ms(self, row: Row) -> float:
        """Launching one eager step of one process."""
        layers = placement(row).shape.layers
        collectives = COLLECTIVES_A_LAYER * layers + 1 if row.tensor_parallel_size != 1 else 0
        launches = INCUMBENT_LAUNCHES_A_LAYER * layers + INCUMBENT_LAUNCHES_A_STEP + collectives
        return launches * self.launch_us / 1e3

    def decode_ms(self, row: Row, requests: int) -> float:
        context = row.workload.input_tokens + row.workload.output_tokens // 2
        return max(self.host_ms(row), placement(row).modeled_decode_ms(requests, context))

    def prefill_ms(self, row: Row, tokens: int) -> float:
        place = placement(row)
        masks_ms = tokens * place.shape.layers * self.prompt_token_us / 1e3
        return max(self.host_ms(row), place.modeled_prefill_ms(tokens)) + masks_ms

    def output_tokens_per_s(self, row: Row) -> float:
        """Of an offline row: all prompts in full steps, then all requests decoding at once."""
        workload = row.workload
        steps = -(-workload.prompts * workload.input_tokens // TOKENS_A_STEP)
        decoding_ms = workload.output_tokens * self.decode_ms(row, workload.prompts)
        total_ms = steps * self.prefill_ms(row, TOKENS_A_STEP) + decoding_ms
        return workload.prompts * workload.output_tokens / total_ms * 1e3


def placement(row: Row) -> Placement:
    return Placement(find_model(row.model).shape, find(CHIP), row.tensor_parallel_size or 1)


def median_ms(latency: Latency | None) -> float:
    """Every online row of the published figures has its latencies."""
    if latency is None:
        raise ValueError("An online row of the published figures lacks a latency.")
    return latency.median


def fit(rows: list[Row]) -> Incumbent:
    """The two constants, from the two rows of concurrency 1."""
    small, large = (
        next(row for row in rows if row.kind == "serve" and row.model == model and row.workload.concurrency == 1)
        for model in ("qwen3-0.6b", "qwen3-32b")
    )
    unit = Incumbent(launch_us=1.0)
    launched = Incumbent(launch_us=median_ms(small.runs[0].tpot_ms) / unit.host_ms(small))
    tokens = large.workload.input_tokens
    missing_ms = median_ms(large.runs[0].ttft_ms) - launched.prefill_ms(large, tokens)
    return Incumbent(launched.launch_us, missing_ms * 1e3 / (tokens * placement(large).shape.layers))


def judge(rows: list[Row]) -> tuple[Incumbent, list[Prediction]]:
    """The fitted incumbent, and what it says of every figure of the published figures."""
    incumbent = fit(rows)
    predictions = []
    for row in rows:
        name = f"{row.model}, {row.tensor_parallel_size} chips, "
        if row.kind == "serve":
            requests = row.workload.concurrency or 1
            name += f"online, {requests} at once"
            tpot, ttft = median_ms(row.runs[0].tpot_ms), median_ms(row.runs[0].ttft_ms)
            alone, small = requests == 1, row.model == "qwen3-0.6b"
            predictions.append(
                Prediction(name, "TPOT ms", tpot, incumbent.decode_ms(row, requests), fitted=alone and small)
            )
            # In a closed loop of equal requests the waiting prompts are prefilled together.
            first_ms = incumbent.prefill_ms(row, row.workload.input_tokens * requests)
            predictions.append(Prediction(name, "TTFT ms", ttft, first_ms, fitted=alone and not small))
        else:
            published_speed = max(run.output_tokens / run.duration_s for run in row.runs)
            speed = incumbent.output_tokens_per_s(row)
            predictions.append(Prediction(name + "offline", "output tokens/s", published_speed, speed))
    return incumbent, predictions


def model_table(incumbent: Incumbent, predictions: list[Prediction]) -> list[str]:
    lines = [
        f"\nThe model against the published figures: {incumbent.launch_us:.0f} us of host time a launch and "
        f"{incumbent.prompt_token_us:.1f} us more for a prompt's token in a layer, fitted to the rows so marked\n",
        "| row | figure | published | model | error |",
        "| --- | --- | --- | --- | --- |",
    ]
    for p in predictions:
        error = "fitted" if p.fitted else f"{p.error:+.0%}"
        lines.append(f"| {p.row} | {p.figure} | {p.published:.1f} | {p.model:.1f} | {error} |")
    return lines


PREFACE = """# Fidelity of modelled time

Written by `python -m benchmarks published --fidelity docs/fidelity.md`. Nothing here ran on a card:
the only measurements of hardware are the published figures. 中文：[建模时间的可信度](zh/fidelity.md).

## What is modelled

A kernel takes a fixed time of launch and the longest of its bytes, its matrix operations and its vector operations,
each over the chip's peak (`chips.toml`) times a share that kernels reach (`emulator/src/core/cost.h`). A collective
begins when its last rank has come and takes a launch, the link's latency, and its bytes over the slowest link between
its ranks. Streams overlap freely. Host time is that of the machine that emulates, divided by the dilation.

Left out: contention between streams, the L2 cache, bank conflicts, throttling, the cost of HTTP.

## What it rests on

The shares of peak (`cost.h`), the links and the fixed cost of a launch (`chips.toml`, marked EST) are estimates that
nobody has measured on this chip. The published figures cannot calibrate them: at concurrency 1 both models take
2.0 ms a layer, so those rows measure the host. What they give is the host's time for a launch, with the launches of the
incumbent counted on the emulator (release 0.29.0rc1; the published ones are of 0.18.0rc1, whose counts are not known),
and what that release does with a prompt beside the model's own work: in every layer of every prefill it rebuilt a mask
of `[tokens, max_model_len]` and waited for the chip (read in its source, not measured).

The weakest of the estimates is the latency of a collective, 25 us between cards and 20 us within one. On another
chip, the first 910, a public measurement of HCCL has 0.39 to 0.48 ms for an all-reduce of 10 KB over four chips,
waits of the host included (github.com/lvyufeng/PocketLLM, docs/performance/ascend_attention_optimization.md and pull
request 272). If a captured all-reduce cost that much here, Qwen3-32B on four chips would take 45 to 60 ms more
a token. `hccl_test` on a card settles it.

## Errors
"""

AFTERWORD = """
The rows of concurrency 8 and those offline are predictions. With launches alone the model missed time to first token
by up to 91 % and offline throughput by up to 670 %; the second constant is what a prompt costs beside its products.
What remains of the offline error has no explanation that the published figures could confirm.

Two things hold our own decode steps above their floors, and both are estimates. Kernels are assumed to reach 80 % of
the bandwidth, so that no step comes nearer than 1.25 times its floor, and Qwen3-32B on four chips cannot reach 80 % of
its floor while a launch or a collective takes any time at all. Each of the 12 launches of a layer is assumed to take
6 us: 2.1 ms a token for 28 layers, more than a third of the floor of Qwen3-0.6B.
"""


def fidelity_page(incumbent: Incumbent, predictions: list[Prediction], tables: list[str]) -> str:
    parts = [PREFACE, *model_table(incumbent, predictions), AFTERWORD]
    if tables:
        parts += ["## Ours, modelled, beside the published figures", *tables]
    return "\n".join(parts).rstrip() + "\n"
