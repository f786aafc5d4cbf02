"""The worker: one process for one chip. It opens the device, measures memory, and runs what the engine asks for."""

from __future__ import annotations

import gc
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from vllm.config import set_current_vllm_config
from vllm.platforms import current_platform
from vllm.platforms.interface import set_assigned_physical_gpu_ids
from vllm.utils.mem_utils import MemorySnapshot
from vllm.utils.torch_utils import set_random_seed
from vllm.v1.worker.gpu_worker import Worker, init_worker_distributed_environment
from vllm.v1.worker.utils import request_memory

from ascend_plugin import compat, distributed, log, memory, models, ops, quantization, sleep
from ascend_plugin.cache import kv_cache
from ascend_plugin.log import plugin_logger
from ascend_plugin.phases import phase
from ascend_plugin.runner.model_runner import AscendModelRunner

logger = plugin_logger(__name__)


class AscendWorker(Worker):
    """vLLM's worker, opening an Ascend device where the base class opens a CUDA one."""

    @phase("it was opened")
    def init_device(self) -> None:
        """Bind this process to its chip, join the process groups and take the memory baseline."""
        compat.prepare_worker_process()
        log.hide_announced_conversions()
        # Qwen3.5 with pictures says that it is a hybrid, and nothing of its states.
        if self.model_config.has_inner_state or self.model_config.is_hybrid:
            ops.register_recurrent_layers()
            compat.prepare_recurrent_layers()
        if self.model_config.is_multimodal_model:
            ops.register_encoder_layers()
        models.register()
        # Modules stay for life: vLLM collects garbage a score of times while it starts, a second each with them.
        gc.freeze()
        self.device = self._open_device()
        current_platform.check_if_supports_dtype(self.model_config.dtype)
        # Before the baseline, so that the buffers of collectives count as used.
        init_worker_distributed_environment(
            self.vllm_config, self.rank, self.distributed_init_method, self.local_rank, current_platform.dist_backend
        )
        distributed.create_communicators(self.parallel_config.enable_expert_parallel)
        set_random_seed(self.model_config.seed)
        gc.collect()
        torch.npu.empty_cache()
        self.init_snapshot = MemorySnapshot(device=self.device)
        self.requested_memory = request_memory(self.init_snapshot, self.cache_config)
        self.plan = memory.plan_or_refuse(self.vllm_config, self.init_snapshot.total_memory, self.requested_memory)
        self._init_workspace_and_model_runner()

    def _open_device(self) -> torch.device:
        # Where there are replicas, vLLM gives each its own chips here, so ranks count within a replica.
        assigned = self.parallel_config.assigned_physical_gpu_ids
        if assigned is not None:
            set_assigned_physical_gpu_ids(assigned)
        available = len(assigned) if assigned is not None else torch.npu.device_count()
        if self.local_rank >= available:
            raise RuntimeError(
                f"Rank {self.rank} needs chip {self.local_rank} of this machine and only {available} are visible: "
                "lower the parallel sizes or widen ASCEND_RT_VISIBLE_DEVICES."
            )
        index = current_platform.logical_device_id_to_visible_device_id(self.local_rank)
        device = torch.device(f"npu:{index}")
        torch.npu.set_device(device)
        # Prebuilt operators; chips below 910B would otherwise compile each operator on its first shape.
        torch.npu.set_compile_mode(jit_compile=False)
        return device

    @phase("weights were loaded")
    def load_model(self, **options: Any) -> None:
        super().load_model(**options)
        quantization.report_expansions()

    @phase("the KV cache was allocated")
    def initialize_from_config(self, *arguments: Any, **named: Any) -> None:
        super().initialize_from_config(*arguments, **named)

    @phase("graphs were captured")
    def compile_or_warm_up_model(self) -> Any:
        return super().compile_or_warm_up_model()

    @phase("a step was computed")
    def execute_model(self, *arguments: Any, **named: Any) -> Any:
        return super().execute_model(*arguments, **named)

    @phase("tokens were sampled")
    def sample_tokens(self, *arguments: Any, **named: Any) -> Any:
        return super().sample_tokens(*arguments, **named)

    def _make_model_runner(self) -> AscendModelRunner:
        return AscendModelRunner(self.vllm_config, self.device)

    @property
    def sleep_mode_backend(self) -> Any:
        sleep.register()
        backend = super().sleep_mode_backend
        backend.attach(self.model_runner)
        return backend

    @phase("it was put to sleep")
    def sleep(self, level: int = 1) -> None:
        super().sleep(level)

    @phase("it was woken")
    def wake_up(self, tags: list[str] | None = None) -> None:
        with set_current_vllm_config(self.vllm_config):  # graphs are captured
            super().wake_up(tags)

    @phase("weights were loaded again")
    def reload_weights(self, *arguments: Any, **named: Any) -> None:
        super().reload_weights(*arguments, **named)
        self._renew_graphs()

    def _renew_graphs(self) -> None:
        """Capture graphs anew: layers may have made other tensors of their weights, and constants of them."""
        if self.sleep_mode_backend.state() == "RUNNING":  # else waking does it
            with set_current_vllm_config(self.vllm_config):
                self.model_runner.drop_graphs()
                self.model_runner.capture_again()

    def _maybe_get_memory_pool_context(self, tag: str) -> AbstractContextManager[None]:
        return nullcontext()  # the base class's pools serve CUDA's sleep mode; see ascend_plugin.sleep for this one

    @phase("memory was measured in a profile run")
    @torch.inference_mode()
    def determine_available_memory(self) -> int:
        """Bytes for the KV cache: requested memory less weights, the measured peak of a profile run, and graphs."""
        given = self.cache_config.kv_cache_memory_bytes
        self.model_runner.profiles = not (given and self._surely_holds(given))
        available = super().determine_available_memory()
        share = self._accounted_share()
        if given:
            return int(available * share)
        reserve = self.model_runner.graph_memory_estimate()
        self.available_kv_cache_memory_bytes = (available - reserve) * share
        if reserve:
            logger.info("%.2f GiB of it are kept for %d graphs.", reserve / 2**30, self.model_runner.graph_count())
        return int(self.available_kv_cache_memory_bytes)

    def _surely_holds(self, cache_bytes: int) -> bool:
        """Whether a step fits beside this cache for certain, which is all that a profile run could still show.

        Never of several ranks, which must all run it or none: their chips' memory may differ. Nor of a model that takes
        images, whose encoder the plan does not know.
        """
        alone = self.parallel_config.world_size == 1
        text_only = not self.model_config.is_multimodal_model
        weights_bytes = self.model_runner.model_memory_usage  # measured: a plan may count too few
        return alone and text_only and self.plan is not None and self.plan.fits_with_margin(cache_bytes, weights_bytes)

    def _accounted_share(self) -> float:
        """Share of the cache's memory that vLLM's arithmetic sees (see kv_cache.allocate_nz)."""
        if self.model_runner.chip.kv_cache_format != "nz":
            return 1.0
        return kv_cache.accounted_share(self.get_kv_cache_spec().values())
