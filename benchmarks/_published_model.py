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
from benchmarks._calibration import read
from benchmarks.calibrate import constants_of
from benchmarks.calibrate import fit as fit_constants
from benchmarks.calibrate import table as calibration_table

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

Written by `python -m benchmarks published --fidelity docs/fidelity.md`. Nothing here was measured by this project:
every measurement is somebody's public figure. 中文：[建模时间的可信度](zh/fidelity.md).

## What is modelled

An operator takes what the smallest operator takes, and the longest of its bytes, its matrix operations and its vector
operations, each over the chip's peak (`src/ascend_facts/chips.toml`) times the share that kernels reach
(`src/ascend_facts/time_model.toml`). The cube works on whole blocks of 16 x 16 and tiles of 128 x 256; cores idle
in the last round of tiles; FRACTAL_NZ is read with its padding. Products read their weights from memory; vector
operators whose tensors fit into the second-level cache move them at its rate. An operator that indexes moves the rows
it touches, one that no core runs takes the AI CPU's time.

A collective begins when its last rank has come, and takes the form that HCCL chooses (its source: `SelectAlg...` of
each operator; its documents' alpha-beta forms). On 310P an all-reduce of up to 256 KB among 2, 4 or 8 chips is
recursive doubling, log2 n steps of the whole buffer; a larger one is a ring of 2 (n - 1) steps. On 910B, whose eight
chips are a full mesh, up to 256 KB is one step, and more is two steps of 1/n of the buffer over each link at once. On
910C a switch takes the mesh's place up to 512 KB a rank, and a ring carries more.

Streams overlap freely; an event carries the time of its own record, a value's waiter that of the write, and a stream
holds back the host when its 1,792 task slots are taken, as measured on a2a3 (github.com/hw-native-sys/simpler, issue
1853). Host time is that of the machine that emulates, divided by the dilation.

Left out: contention between streams, bank conflicts, throttling, the cost of HTTP; that float16 products of many rows
outgrow the second-level cache (10240^3 below); that functions as softmax and silu take many vector instructions an
element.

## What it rests on

`src/ascend_facts/calibration.toml` has one row a public measurement, with its source and whether it is in the fit. Ten
constants are fitted (`python -m benchmarks calibrate`), each to few rows; the model predicts the others, more than half
of the engines' rows among them. Three constants have no measurement of their own: the step of a collective on 910B,
910C and 950. The emulator's clock, `ascend plan` and this page compute with the same constants.
"""

AFTERWORD = """
The rows of concurrency 8 and those offline are predictions of an engine whose host sets the pace: 0.18.0rc1, eager,
with a mask of `[tokens, max_model_len]` rebuilt in every layer of every prefill (read in its source, not measured).
With launches alone the model missed time to first token by up to 91 % and offline throughput by up to 670 %; the second
constant is what a prompt costs beside its products. What remains of the offline error has no explanation that the
published figures could confirm.
"""

MISSES = """
What is missed, and which measurement would settle it:

* Qwen3-32B and Qwen3-4B on four A2 chips (issue 4656, 0.11.0rc2) and three rows of vllm-ascend 0.11 on 910B4: these
  releases spend more host time a step than 0.13.0rc1, from which the host's constants are; a profile of their idle time
  is lacking. The same model and chip two weeks later (pull request 4526) is met within 7 %.
* Qwen3-32B W8A8 with 90 at once: the figure includes scheduling, prompts in chunks beside decoding and the tail of a
  closed loop; its time per token is not published.
* MindIE at 64,000 tokens on 910B4: 40 ms a token is less than reading the cache takes at the chip's 800 GB/s, so the
  precision of its cache or the bandwidth of that bin is not what is assumed; the source states neither.
* One-row products on the 910A reach a quarter of its bandwidth, through an operator of that project's own; 310P's
  engines read weights at 0.84 of theirs. A copy and a one-row product timed on a 310P would settle it.
* HCCL on the 910A takes 0.39 to 0.52 ms whatever the size and the ranks, with the host's launch and wait inside, of
  which that source says only that an empty operator takes 0.018 ms. The step of 310P here, 34 us, makes 69 us of an
  all-reduce over four chips; `hccl_test` on a card settles it.
* silu and softmax in float16 are slower than their bytes: vector instructions a function takes are not modelled.
"""


def fidelity_page(incumbent: Incumbent, predictions: list[Prediction], tables: list[str]) -> str:
    calibration = read()
    constants = constants_of(fit_constants(calibration))
    parts = [PREFACE, "## Every measurement", *calibration_table(calibration, constants), MISSES]
    parts += ["## The published figures of 310P", *model_table(incumbent, predictions), AFTERWORD]
    if tables:
        parts += ["## Ours, modelled, beside the published figures", *tables]
    return "\n".join(parts).rstrip() + "\n"
