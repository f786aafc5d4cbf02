"""Runs engines for a test: reads a job as JSON from the file named first, writes what they answered to the second.

Each engine has a process of its own, because it takes its chips for the life of its process; the processes are forked
from this one, which has imported everything and touched no chip. Job: a list of
    model, options   arguments of vllm.LLM
    rounds           lists of {"prompt": [token ids], "sampling": {arguments of SamplingParams}, "adapter": optional
                     folder of a LoRA adapter}, run one after another; or {"call": a method of vllm.LLM,
                     "arguments"} (see call), which is answered with the bytes that are free afterwards
    watch            optional: whether to look for copies that end inside a block of 32 bytes
    linger_s         optional: how long the host waits before each step, in which the chip certainly ends the last one
Answer: for each engine what the profile run left for the KV cache, how often it preempted, how many drafted tokens it
accepted, and for each round what the requests got and the chip's counters.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import sys
import time
import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # the counters are this process's
os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "fork")  # a rank need not import everything again


def scored(position: dict | None) -> dict[int, float]:
    """The log-probabilities that were asked for at one position, by token."""
    return {token: entry.logprob for token, entry in (position or {}).items()}


def answer(output: Any) -> dict[str, Any]:
    first = output.outputs[0]
    return {
        "tokens": [list(each.token_ids) for each in output.outputs],
        "text": first.text,
        "finish_reason": first.finish_reason,
        "logprobs": [scored(position) for position in first.logprobs or []],
        "prompt_logprobs": [scored(position) for position in output.prompt_logprobs or []],
        "cached_tokens": output.num_cached_tokens,
    }


def linger(seconds: float) -> None:
    from ascend_plugin.runner.model_runner import AscendModelRunner

    update_states = AscendModelRunner._update_states

    def update_late(runner: Any, scheduler_output: Any) -> Any:
        time.sleep(seconds)
        return update_states(runner, scheduler_output)

    AscendModelRunner._update_states = update_late


class RaggedCopies(TorchDispatchMode):
    """Notes who copies between buffers of the chip, without converting, to a view that ends inside 32 bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten.copy_.default:
            target, source = args[:2]
            if target.device.type == source.device.type == "npu" and target.dtype == source.dtype:
                end = (target.storage_offset() + target.numel()) * target.element_size()
                if end % 32 and end != target.untyped_storage().nbytes():
                    caller = next(
                        frame
                        for frame in reversed(traceback.extract_stack())
                        if "/vllm/" in frame.filename or "/ascend_plugin/" in frame.filename
                    )
                    self.found.add(f"{Path(caller.filename).name}:{caller.name}: {caller.line}")
        return function(*args, **(kwargs or {}))


def sampling_params(arguments: dict[str, Any]) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    if "structured_outputs" in arguments:
        arguments = {**arguments, "structured_outputs": StructuredOutputsParams(**arguments["structured_outputs"])}
    if "logit_bias" in arguments:  # JSON has no integer keys
        arguments = {**arguments, "logit_bias": {int(token): bias for token, bias in arguments["logit_bias"].items()}}
    return SamplingParams(**arguments)


def adapters(requests: list[dict[str, Any]]) -> list[Any] | None:
    """For each request its adapter or None; None if no request has one."""
    from vllm.lora.request import LoRARequest

    folders = sorted({request["adapter"] for request in requests if request.get("adapter")})
    known = {folder: LoRARequest(Path(folder).name, int(folder.rpartition("-")[2]), folder) for folder in folders}
    return [known.get(request.get("adapter")) for request in requests] if known else None


def run_engine(job: dict[str, Any]) -> dict[str, Any]:
    from ascend_emulator import counters
    from vllm import LLM, TokensPrompt

    if job.get("linger_s"):
        linger(job["linger_s"])
    engine = LLM(job["model"], disable_log_stats=False, **job["options"])
    rounds = []
    watch = RaggedCopies()
    for requests in job["rounds"]:
        if isinstance(requests, dict):
            call(engine, requests["call"], requests["arguments"])
            rounds.append({"free_bytes": torch.npu.mem_get_info()[0]})
            continue
        counters.reset_stats()
        with watch if job.get("watch") else nullcontext():
            outputs = engine.generate(
                [TokensPrompt(prompt_token_ids=request["prompt"]) for request in requests],
                [sampling_params(request["sampling"]) for request in requests],
                lora_request=adapters(requests),
                use_tqdm=False,
            )
        rounds.append({"answers": [answer(output) for output in outputs], "stats": counters.stats()})
    counts = {metric.name: metric.value for metric in engine.get_metrics() if hasattr(metric, "value")}
    memory = engine.collective_rpc(memory_of_worker)
    return {
        "rounds": rounds,
        "preemptions": counts.get("vllm:num_preemptions", 0),
        "accepted_drafts": counts.get("vllm:spec_decode_num_accepted_tokens", 0),
        "drafts": counts.get("vllm:spec_decode_num_draft_tokens", 0),
        "ragged_copies": sorted(watch.found),
        "cache_bytes": memory[0][0],
        "chip_bytes": memory[0][1],
    }


def call(engine: Any, method: str, arguments: dict[str, Any]) -> None:
    """A method of vllm.LLM, or "load_directly": what trainers do to the model of each worker, from a folder."""
    if method == "load_directly":
        engine.collective_rpc(load_directly, kwargs=arguments)
        engine.reset_prefix_cache()
    else:
        getattr(engine, method)(**arguments)


def load_directly(worker: Any, folder: str) -> None:
    from safetensors.torch import load_file

    worker.model_runner.model.load_weights(load_file(f"{folder}/model.safetensors").items())


def memory_of_worker(worker: Any) -> tuple[int, int]:
    """Bytes that the profile run left for the KV cache (SMALL's num_gpu_blocks_override takes less), and the chip's."""
    return int(worker.available_kv_cache_memory_bytes), worker.init_snapshot.total_memory


def run_in_child(job: dict[str, Any], result: Path) -> None:
    result.write_text(json.dumps(run_engine(job)))
    sys.stdout.flush()
    os._exit(0)  # interpreter exit tears the process groups down in an order that vLLM's finaliser trips over


def main() -> None:
    from vllm import LLM  # noqa: F401

    import ascend_plugin.worker  # noqa: F401

    gc.freeze()  # the engines' collections need not walk what was imported
    results = []
    for number, job in enumerate(json.loads(Path(sys.argv[1]).read_text())):
        result = Path(f"{sys.argv[2]}.{number}")
        child = multiprocessing.get_context("fork").Process(target=run_in_child, args=(job, result))
        child.start()
        child.join()
        if child.exitcode != 0:
            sys.exit(f"The engine with {job['options']} ended with {child.exitcode}.")
        results.append(json.loads(result.read_text()))
    Path(sys.argv[2]).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
