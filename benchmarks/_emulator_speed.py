"""What `emulator` measures, in a process with an emulated chip: `python _emulator_speed.py JOB.json RESULT.json`.

Sides alternate within each measurement, so that whatever else the machine does meets them alike.

Job:    parts (of PARTS), model (folder), threads, driver (the library made of _small_op.c), tokens,
        shapes (rows, inner, columns)
Result: chip, threads, and for each part a list of rows with all sides in milliseconds (microseconds for small_op)
"""

from __future__ import annotations

import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

SMALL_OPS = 5000  # in one timing: some 20 ms
ROUNDS = 41  # timings of each side, or as many (but no fewer than FEWEST_ROUNDS) as CASE_S allows
FEWEST_ROUNDS = 3
CASE_S = 10.0
SETTLE_S = 0.02  # OpenMP's threads spin for some milliseconds after a loop, which the side after them would pay for
COLD_BYTES = 96 << 20  # of weights that a matmul passes over before it meets one again: more than the caches hold
CPU_FP16_ROWS = 8  # with more, plain CPU torch takes seconds for a product where the CPU has no fp16 arithmetic
TOKENS_A_TURN = 4  # that a side decodes before the other has its turn


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    import torch
    import torch_npu

    torch.set_num_threads(job["threads"])
    torch_npu.npu.set_compile_mode(jit_compile=False)  # a 310P would otherwise compile each operator for its shape
    result: dict[str, Any] = {"chip": torch_npu.npu.get_device_name(), "threads": job["threads"]}
    for part in job["parts"]:
        result[part] = PARTS[part](job)
        Path(sys.argv[2]).write_text(json.dumps(result))


def interleaved(sides: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Median of what each side returns, called in turn; what a side does for the first time is not counted."""
    samples: dict[str, list[float]] = {name: [] for name in sides}
    for run in sides.values():
        run()
    started = time.perf_counter()
    for number in range(ROUNDS):
        if number >= FEWEST_ROUNDS and time.perf_counter() - started > CASE_S:
            break
        for name, run in sides.items():
            time.sleep(SETTLE_S)
            samples[name].append(run())
    return {name: statistics.median(values) for name, values in samples.items()}


def small_op(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Microseconds of an addition of 8 floats: CPU of the calling thread, of all threads, and wall."""
    import torch
    import torch_npu

    a, b, out = (torch.ones(8, device="npu") for _ in range(3))
    c, d = torch.ones(8), torch.ones(8)
    driver = ctypes.CDLL(job["driver"])  # its undefined symbols are the emulated libraries', which are loaded globally
    addresses = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (a, b, out)]
    stream = ctypes.c_void_p(torch_npu.npu.current_stream().npu_stream)

    def through_c() -> None:
        code = driver.add_repeatedly(*addresses, ctypes.c_int64(8), ctypes.c_int64(SMALL_OPS), stream)
        if code:
            raise RuntimeError(f"aclnnAdd failed: {code}.")

    def through_torch() -> None:
        for _ in range(SMALL_OPS):
            a + b

    def on_cpu() -> None:
        for _ in range(SMALL_OPS):
            c + d

    def loop_only() -> None:
        for _ in range(SMALL_OPS):
            pass

    def timed(run: Callable[[], None], clock: Callable[[], float], to_the_end: bool) -> Callable[[], float]:
        def once() -> float:
            started = clock()
            run()
            if to_the_end:
                torch_npu.npu.synchronize()
            taken = clock() - started
            torch_npu.npu.synchronize()
            return taken / SMALL_OPS * 1e6

        return once

    sides = {"emulator": through_c, "torch_npu": through_torch, "torch CPU": on_cpu, "empty loop": loop_only}
    clocks = {
        "host: calling thread": (time.thread_time, False),
        "CPU of all threads": (time.process_time, True),
        "wall until done": (time.perf_counter, True),
    }
    return [
        {"case": name} | interleaved({side: timed(run, *clock) for side, run in sides.items()})
        for name, clock in clocks.items()
    ]


def decode(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Milliseconds of a decoded token of SmolLM2 through transformers, on the chip and on plain CPU torch."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    prompt = tokenizer("The three laws of thermodynamics are", return_tensors="pt").input_ids
    exact = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    count = job["tokens"]
    with torch.inference_mode():
        forced = exact.generate(prompt, max_new_tokens=count, min_new_tokens=count, do_sample=False)
        sides = {"chip fp16": decoder(job["model"], torch.float16, "npu", forced, prompt.shape[1])}
        for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)):
            sides[f"CPU {name}"] = decoder(job["model"], dtype, "cpu", forced, prompt.shape[1])
        samples: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(count // TOKENS_A_TURN):
            for name, steps in sides.items():
                samples[name].extend(next(steps) for _ in range(TOKENS_A_TURN))
    # The first turn is where caches grow and kernels are chosen.
    return [{"case": "token", **{name: statistics.median(times[TOKENS_A_TURN:]) for name, times in samples.items()}}]


def decoder(model_folder: str, dtype: Any, device: str, forced: Any, prompt_length: int) -> Iterator[float]:
    """Milliseconds of each next token, the most likely one brought to the host; fed with `forced`, as on every side."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=dtype).to(device)
    tokens = forced.to(device)
    cache = model(tokens[:, :prompt_length], use_cache=True).past_key_values
    for position in range(prompt_length, tokens.shape[1]):
        started = time.perf_counter()
        answer = model(tokens[:, position : position + 1], past_key_values=cache, use_cache=True)
        torch.argmax(answer.logits[0, -1]).item()
        yield (time.perf_counter() - started) * 1e3


def matmul(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Milliseconds of x @ weight.T, the weights not in cache."""
    import torch

    rows = []
    for count, inner, columns in job["shapes"]:
        sides = {
            "chip fp16": product(count, inner, columns, torch.float16, "npu"),
            "chip fp16 NZ": product(count, inner, columns, torch.float16, "npu", fractal=True),
            "chip fp32": product(count, inner, columns, torch.float32, "npu"),
            "CPU fp32": product(count, inner, columns, torch.float32, "cpu"),
        }
        if count <= CPU_FP16_ROWS:
            sides["CPU fp16"] = product(count, inner, columns, torch.float16, "cpu")
        case = f"{count} x {inner} x {columns}"
        rows.append({"case": case, "rows": count} | interleaved(sides))
    return rows


def product(rows: int, inner: int, columns: int, dtype: Any, device: str, fractal: bool = False) -> Callable[[], float]:
    import torch
    import torch_npu

    fractal_nz = 29  # ACL_FORMAT_FRACTAL_NZ
    copies = max(1, COLD_BYTES // (inner * columns * dtype.itemsize))
    weight = torch.randn(columns, inner).to(dtype).to(device)
    weights = [weight.clone() for _ in range(copies)]
    if fractal:
        weights = [torch_npu.npu_format_cast(weight, fractal_nz) for weight in weights]
    x = torch.randn(rows, inner).to(dtype).to(device)
    repeats = max(1, min(16, 200_000_000 // (rows * inner * columns)))  # a timing of some milliseconds
    following = cycle(weights)

    def once() -> float:
        started = time.perf_counter()
        for _ in range(repeats):
            torch.nn.functional.linear(x, next(following))
        if device == "npu":
            torch_npu.npu.synchronize()
        return (time.perf_counter() - started) / repeats * 1e3

    return once


PARTS = {"small_op": small_op, "decode": decode, "matmul": matmul}

if __name__ == "__main__":
    main()
