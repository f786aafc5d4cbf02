"""The model runner: vLLM's V1 runner, with what Ascend does differently.

Deliberately thin, so that a runner on vLLM's second interface can stand beside it. In the order of a runner's life:
loading, the KV cache, graphs, the inputs of a step, sampling.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from vllm.compilation.cuda_graph import CUDAGraphWrapper
from vllm.config import CUDAGraphMode
from vllm.forward_context import BatchDescriptor
from vllm.platforms import current_platform
from vllm.v1.kv_cache_interface import KVCacheConfig
from vllm.v1.outputs import SamplerOutput
from vllm.v1.spec_decode.draft_model import DraftModelProposer
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from ascend_plugin import compat, detection, media_towers
from ascend_plugin.attention.base import unfused_attention_of
from ascend_plugin.attention.unfused import GRAPH_KEYS
from ascend_plugin.cache import kv_cache
from ascend_plugin.graphs import budget
from ascend_plugin.graphs.wrapper import AscendGraphWrapper
from ascend_plugin.missing_kernels import explained
from ascend_plugin.ops import moe_runner, positions, sampling, structured_output
from ascend_plugin.ops.noise import HostNoise
from ascend_plugin.runner.accepted import AcceptedTokens
from ascend_plugin.runner.draft_model import AscendDraftModel, write_inputs_by_index
from ascend_plugin.runner.dummy_run import dummy_run_context
from ascend_plugin.runner.packed_inputs import PackedInputs
from ascend_plugin.weight_upload import HostDraws, PinnedUploads


class AscendModelRunner(GPUModelRunner):
    """Runs a model on one chip."""

    def __init__(self, vllm_config: Any, device: torch.device) -> None:
        super().__init__(vllm_config, device)
        self.chip = detection.current_chip()
        noise = HostNoise(torch.initial_seed() % 2**63)  # the same on every rank, each of which samples
        sampling.sample_with(self.sampler, getattr(self, "rejection_sampler", None), noise, self.chip)
        if isinstance(getattr(self, "drafter", None), DraftModelProposer):
            self.drafter = AscendDraftModel(vllm_config, device, self)
        write_inputs_by_index(getattr(self, "drafter", None))
        self.profiles = True  # whether profile_run is to run
        self._warmed_up = False
        self._inputs: PackedInputs | None = None  # where the host knows all of them
        self._accepted: AcceptedTokens | None = None  # where upstream would follow them by row, or on the device
        if self.speculative_config is not None and (self.use_async_scheduling or self.model_config.is_hybrid):
            self._accepted = AcceptedTokens(self.max_num_reqs, self.num_spec_tokens + 1, device)

    # ------------------------------------------------------------------ loading

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        draws = nullcontext() if self.chip.forms.device_random else HostDraws()
        with PinnedUploads(), draws, explained(self.model_config.architecture):
            super().load_model(*args, **kwargs)
        torch.accelerator.empty_host_cache()
        self.prepare_model()
        self._limit_graphs()
        if isinstance(self.model, CUDAGraphWrapper):
            self.model = AscendGraphWrapper(self.model.unwrap(), self.vllm_config, CUDAGraphMode.FULL)

    def reload_weights(self, *args: Any, **kwargs: Any) -> None:
        super().reload_weights(*args, **kwargs)
        self.prepare_model()

    def models(self) -> list[torch.nn.Module]:
        """The model, and its drafter if that is one."""
        drafter = getattr(getattr(self, "drafter", None), "model", None)
        return [model for model in (self.get_model(), drafter) if isinstance(model, torch.nn.Module)]

    def prepare_model(self) -> None:
        for model in self.models():
            moe_runner.find_compensated(model)
            positions.prepare(model)
            if not self.chip.forms.int64_sums:
                media_towers.prepare(model)
            compat.prepare_model(model, self.chip)

    def _limit_graphs(self) -> None:
        """Capture no batch whose unfused attention would read too much in every replay (see attention/unfused.py)."""
        layers = self.compilation_config.static_forward_context.values()
        found = [unfused for unfused in map(unfused_attention_of, layers) if unfused is not None]
        if found and self.compilation_config.cudagraph_mode != CUDAGraphMode.NONE:
            longest = self.model_config.max_model_len
            reach = max(min(unfused.window or longest, longest) for unfused in found)
            reason = f"a replay reads {reach} keys of each sequence, used or not"
            budget.limit_tokens(self.compilation_config, GRAPH_KEYS // reach, reason)

    # ------------------------------------------------------------------ images and sound

    def _tower_mode(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.chip.forms.int64_sums else media_towers.tower_mode()

    def _execute_mm_encoder(self, *args: Any, **kwargs: Any) -> Any:
        with self._tower_mode():
            return super()._execute_mm_encoder(*args, **kwargs)

    def _get_mm_dummy_batch(self, *args: Any, **kwargs: Any) -> Any:
        with self._tower_mode():
            return super()._get_mm_dummy_batch(*args, **kwargs)

    # ------------------------------------------------------------------ the KV cache

    def profile_run(self, *args: Any, **kwargs: Any) -> None:
        if self.profiles:
            with explained(self.model_config.architecture):
                super().profile_run(*args, **kwargs)

    @torch.inference_mode()
    def _dummy_sampler_run(self, hidden_states: torch.Tensor) -> torch.Tensor:
        with dummy_run_context(self.chip):
            return super()._dummy_sampler_run(hidden_states)

    def initialize_kv_cache(self, kv_cache_config: KVCacheConfig, *args: Any, **kwargs: Any) -> None:
        self._release_inputs()
        self._inputs = None
        super().initialize_kv_cache(kv_cache_config, *args, **kwargs)
        if PackedInputs.suit(self):
            self._inputs = PackedInputs(self)

    def initialize_kv_cache_tensors(
        self,
        kv_cache_config: KVCacheConfig,
        kernel_block_sizes: list[int],
        kv_cache_allocation_context: AbstractContextManager | None = None,
    ) -> dict[str, Any]:
        """Give every attention layer its (key, value) pair in the form its operators read."""
        layers = self.compilation_config.static_forward_context
        if self.chip.kv_cache_format == "nz":
            unfused = [name for name, layer in layers.items() if unfused_attention_of(layer) is not None]
            pairs = kv_cache.allocate_nz(kv_cache_config, kernel_block_sizes, unfused, self.device)
            pairs |= {name: pairs[target] for name, target in self.shared_kv_cache_layers.items()}
            for name, pair in pairs.items():
                layers[name].bind_kv_cache(pair)
                self.kv_caches.append(pair)
            return pairs
        caches = super().initialize_kv_cache_tensors(kv_cache_config, kernel_block_sizes, kv_cache_allocation_context)
        for group in kv_cache_config.kv_cache_groups:
            if kv_cache.has_keys_and_values(group.kv_cache_spec):
                for name in caches.keys() & group.layer_names:  # encoders' layers are grouped, and keep nothing
                    layers[name].bind_kv_cache(kv_cache.split_pages(layers[name].kv_cache))
        return caches

    def _init_kv_zero_meta(self) -> None:
        """Nothing to prepare: blocks are zeroed by index, not by address (see _zero_block_ids)."""

    def _zero_block_ids(self, block_ids: list[int]) -> None:
        if self.chip.kv_cache_format == "nz":
            return  # keys and values share memory with nothing else, so what is left in them are numbers
        kv_cache.zero_blocks(self.kv_caches, block_ids, self.kv_cache_config.num_blocks)

    # ------------------------------------------------------------------ graphs

    def _warmup_and_capture(
        self,
        desc: BatchDescriptor,
        cudagraph_runtime_mode: CUDAGraphMode,
        profile_seq_lens: int | None = None,
        allow_microbatching: bool = False,
        num_warmups: int | None = None,
        profiler: AbstractContextManager[Any] | None = None,
    ) -> None:
        """Capture one graph; only the first needs a warm-up, which creates what operators create on first use."""
        if self._inputs is None:
            super()._warmup_and_capture(
                desc,
                cudagraph_runtime_mode,
                profile_seq_lens=profile_seq_lens,
                allow_microbatching=allow_microbatching,
                num_warmups=0 if self._warmed_up else 1,
                profiler=profiler,
            )
        else:
            if not self._warmed_up:
                shortest = replace(desc, num_tokens=desc.num_tokens // desc.num_reqs, num_reqs=1)
                self._inputs.run_dummy(shortest, CUDAGraphMode.NONE)
                torch.npu.synchronize()
            with self.synchronize_input_prep():
                self._inputs.run_dummy(desc, cudagraph_runtime_mode)
        self._warmed_up = True

    def dummy_intermediate_tensors(self, tokens: int) -> Any:
        """What an earlier pipeline stage would send; None on the first."""
        from vllm.distributed.parallel_state import get_pp_group

        if get_pp_group().is_first_rank:
            return None
        if self.intermediate_tensors is None:
            self.intermediate_tensors = self.model.make_empty_intermediate_tensors(
                batch_size=self.max_num_tokens, dtype=self.model_config.dtype, device=self.device
            )
        return self.sync_and_gather_intermediate_tensors(tokens, None, False)

    def graph_inputs(
        self, tokens: int, requests: int
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, dict[str, Any]]:
        """Token ids, embeddings and further arguments of a forward pass as _preprocess() is going to hand them on.

        A model with pictures takes embeddings in every step, of text too.
        """
        from vllm.distributed.parallel_state import get_pp_group

        if self.supports_mm_inputs and get_pp_group().is_first_rank:
            return *self._prepare_mm_inputs(tokens), {
                **self._init_model_kwargs(num_reqs=0),
                **self._dummy_mm_kwargs(requests),
            }
        return self.input_ids.gpu[:tokens], None, {}

    def graph_count(self) -> int:
        if self.compilation_config.cudagraph_mode == CUDAGraphMode.NONE:
            return 0
        return len(self.compilation_config.cudagraph_capture_sizes or [])

    def graph_memory_estimate(self) -> int:
        """Bytes to keep back for the graphs that will be captured after the KV cache is allocated."""
        if not self.graph_count():
            return 0
        return self.profile_cudagraph_memory()

    def drop_graphs(self) -> None:
        """Forget all graphs, and with them the addresses that they read and the memory of their pool.

        The next ones get another pool: PyTorch counts who uses one, and takes none that has come down to nobody.
        """
        CUDAGraphWrapper.clear_all_graphs()
        pool = current_platform.graph_pool_handle()
        for wrapper in list(CUDAGraphWrapper._all_instances):
            wrapper.graph_pool = pool

    def capture_again(self) -> None:
        """Capture graphs in the place of those that were dropped."""
        if self.compilation_config.cudagraph_mode != CUDAGraphMode.NONE:
            self.capture_model()

    # ------------------------------------------------------------------ the inputs of a step

    def _update_states(self, scheduler_output: Any) -> Callable[[], None] | None:
        """Move requests in and out of the batch, knowing how many tokens of the last step each has kept.

        Upstream follows these numbers by row while rows move, and corrects lengths on the device. They are followed by
        request here, and from then on the host knows what it plans with: where the last step still runs this waits
        until it has sampled. Its drafter may run on.
        """
        if self._accepted is None:
            return super()._update_states(scheduler_output)
        self._accepted.collect()
        correct = super()._update_states(scheduler_output)
        self._accepted.forget(scheduler_output)
        batch = self.input_batch
        self._expected_computed = batch.num_computed_tokens_cpu.copy()
        if self._inputs is None and self.use_async_scheduling:  # upstream looks a request up by its last row
            for name, row in (batch.prev_req_id_to_index or {}).items():
                batch.num_accepted_tokens_cpu[row] = self._accepted.of(name)
            return correct
        for row, name in enumerate(batch.req_ids):
            batch.num_accepted_tokens_cpu[row] = self._accepted.of(name)
        if correct is not None:
            correct()
        return None

    def _get_valid_sampled_token_count(self) -> list[int]:
        return super()._get_valid_sampled_token_count() if self._accepted is None else self._accepted.by_row()

    def expected_computed_tokens(self) -> np.ndarray:
        """[rows] tokens of each request that would be in the cache had no draft been refused."""
        if self._accepted is None:
            return self.input_batch.num_computed_tokens_cpu
        return self._expected_computed

    def _update_states_after_model_execute(self, output_token_ids: torch.Tensor, scheduler_output: Any) -> None:
        if self._accepted is not None:
            self._accepted.note(output_token_ids, self.input_batch.req_ids, self._block_ends())

    def _prepare_inputs(self, scheduler_output: Any, num_scheduled_tokens: np.ndarray) -> tuple[Any, Any, int]:
        """Prepare a step; returns (which hidden states to sample from, speculation metadata, tokens sampled a row)."""
        if self._inputs is not None:
            return self._inputs.prepare(scheduler_output, num_scheduled_tokens)
        prepared = super()._prepare_inputs(scheduler_output, num_scheduled_tokens)
        self._subtract_refused_drafts()
        return prepared

    def _subtract_refused_drafts(self) -> None:
        """Correct upstream's lengths on the host, which count drafts of the last step that were refused.

        With lengths on the device nothing has to wait for their number.
        """
        if not self.use_async_spec_decode or self.chip.graph_lengths_on_device:
            return
        previous = self.prev_positions.np[: self.input_batch.num_reqs]
        sampled = self._get_valid_sampled_token_count()
        for request in np.flatnonzero(previous >= 0) if sampled else ():
            drafts = self.prev_num_draft_tokens.np[previous[request]]
            if drafts:
                self.optimistic_seq_lens_cpu[request] -= int(drafts) + 1 - sampled[previous[request]]

    def forced_uniform_decode(self) -> bool | None:
        """False keeps a recurrent model's prompts, however short, out of decode graphs: those go on from a state."""
        if not self.model_config.is_hybrid:
            return None
        requests = self.input_batch.num_reqs
        if self.speculative_config is not None:
            prefills = self.num_decode_draft_tokens.np[:requests] < 0
        else:
            prefills = (
                self.input_batch.num_computed_tokens_cpu[:requests] < self.input_batch.num_prompt_tokens[:requests]
            )
        return False if prefills.any() else None

    def _determine_batch_execution_and_padding(
        self, *args: Any, force_uniform_decode: bool | None = None, **kwargs: Any
    ) -> Any:
        if force_uniform_decode is None:
            force_uniform_decode = self.forced_uniform_decode()
        return super()._determine_batch_execution_and_padding(
            *args, force_uniform_decode=force_uniform_decode, **kwargs
        )

    def _release_inputs(self) -> None:
        if self._inputs is not None:
            self._inputs.release()

    def _is_packed(self) -> bool:
        return self._inputs is not None and self._inputs.layout is not None

    def _dummy_run(self, *args: Any, **kwargs: Any) -> Any:
        self._release_inputs()  # for the dummy runs of vLLM, which fill the runner's own
        return super()._dummy_run(*args, **kwargs)

    @contextmanager
    def synchronize_input_prep(self) -> Any:
        """Guard host buffers that the last step's copies may still be reading; as upstream, but seldom waiting."""
        copied = self.prepare_inputs_event
        if copied is None:
            yield
            return
        if not copied.query():
            copied.synchronize()
        try:
            yield
        finally:
            copied.record()

    def _get_slot_mappings(
        self, num_tokens_padded: int, num_reqs_padded: int, num_tokens_unpadded: int, ubatch_slices: Any = None
    ) -> tuple[Any, Any]:
        if not self._is_packed():
            return super()._get_slot_mappings(num_tokens_padded, num_reqs_padded, num_tokens_unpadded, ubatch_slices)
        return self._inputs.slot_mappings(num_tokens_padded)

    def _prepare_padding_mask(self, num_tokens_unpadded: int, num_tokens_padded: int) -> torch.Tensor:
        if not self._is_packed():
            return super()._prepare_padding_mask(num_tokens_unpadded, num_tokens_padded)
        self._inputs.agree(num_tokens_padded)
        return self._inputs.buffer.on_device(self._inputs.layout)["is_padding"]

    def _build_attention_metadata(self, *args: Any, **kwargs: Any) -> Any:
        """Each layer's attention metadata, and the drafter's."""
        if not self._is_packed():
            return super()._build_attention_metadata(*args, **kwargs)
        padded = kwargs.get("num_tokens_padded")
        return self._inputs.attention_metadata(
            kwargs["num_tokens"], kwargs["num_reqs"], padded, kwargs["max_query_len"]
        )

    # ------------------------------------------------------------------ recurrent states under speculation

    def _get_mamba_bufs(self) -> Any:
        buffers = super()._get_mamba_bufs()
        if buffers.postprocess_align is not None:
            buffers.postprocess_align.host_tables = [table.block_table.np for table in self.input_batch.block_table]
        return buffers

    def _block_ends(self) -> Any:
        """What this step's drafts decide about states at the ends of blocks (see cache/recurrent_state.py)."""
        if not self.model_config.is_hybrid or self.cache_config.mamba_cache_mode != "align":
            return None
        return self._get_mamba_bufs().postprocess_align.block_ends(self.input_batch.req_ids)

    # ------------------------------------------------------------------ sampling

    def sample_tokens(self, grammar_output: Any) -> Any:
        """Sample after the grammars' masks, which upstream would apply with shifts that Ascend 310P has not."""
        state = self.execute_model_state
        if grammar_output is None or state is None:
            return super().sample_tokens(grammar_output)
        structured_output.apply_grammar_bitmask(state.scheduler_output, grammar_output, self.input_batch, state.logits)
        return super().sample_tokens(None)

    def _sample(self, logits: torch.Tensor | None, spec_decode_metadata: Any) -> SamplerOutput:
        """Sample; a batch in which every request only wants the likeliest token takes the short way."""
        metadata = self.input_batch.sampling_metadata
        if spec_decode_metadata is not None or not sampling.is_plain_greedy(metadata):
            return super()._sample(logits, spec_decode_metadata)
        self.input_batch.update_async_output_token_ids()
        tokens = logits.argmax(dim=-1, keepdim=True).to(torch.int32)
        return SamplerOutput(sampled_token_ids=tokens, logprobs_tensors=None)
