"""The model runner: vLLM's V1 runner, with what Ascend does differently.

Deliberately thin, so that a runner on vLLM's second interface can stand beside it. In the order of a runner's life:
loading, the KV cache, graphs, the inputs of a step, sampling.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from vllm.compilation.cuda_graph import CUDAGraphWrapper
from vllm.config import CUDAGraphMode
from vllm.forward_context import BatchDescriptor, set_forward_context
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.kv_cache_interface import AttentionSpec, EncoderOnlyAttentionSpec, KVCacheConfig
from vllm.v1.outputs import SamplerOutput
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from ascend_plugin import compat, detection
from ascend_plugin.attention.base import unfused_attention_of
from ascend_plugin.attention.unfused import GRAPH_KEYS
from ascend_plugin.cache import kv_cache
from ascend_plugin.graphs import budget
from ascend_plugin.graphs.wrapper import AscendGraphWrapper
from ascend_plugin.ops import sampling, structured_output
from ascend_plugin.runner.packed_inputs import Layout, StepInputs, fill_batch, fill_sampled, fill_slots
from ascend_plugin.weight_upload import PinnedUploads


class AscendModelRunner(GPUModelRunner):
    """Runs a model on one chip."""

    def __init__(self, vllm_config: Any, device: torch.device) -> None:
        super().__init__(vllm_config, device)
        self.chip = detection.current_chip()
        self.sampler.topk_topp_sampler = sampling.AscendTopKTopPSampler(self.sampler.topk_topp_sampler, self.chip)
        self.profiles = True  # whether profile_run is to run
        self._warmed_up = False
        self._step_inputs: StepInputs | None = None
        # Of the inputs that the runner's buffers are views of; None: they are its own.
        self._packed: Layout | None = None
        self._upstream_buffers: dict[str, Any] = {}

    # ------------------------------------------------------------------ loading

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        with PinnedUploads():
            super().load_model(*args, **kwargs)
        torch.accelerator.empty_host_cache()
        self._prepare_model()
        self._limit_graphs()
        if isinstance(self.model, CUDAGraphWrapper):
            self.model = AscendGraphWrapper(self.model.unwrap(), self.vllm_config, CUDAGraphMode.FULL)

    def reload_weights(self, *args: Any, **kwargs: Any) -> None:
        super().reload_weights(*args, **kwargs)
        self._prepare_model()

    def _prepare_model(self) -> None:
        drafter = getattr(getattr(self, "drafter", None), "model", None)
        for model in (self.get_model(), drafter):
            if isinstance(model, torch.nn.Module):
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

    # ------------------------------------------------------------------ the KV cache

    def profile_run(self, *args: Any, **kwargs: Any) -> None:
        if self.profiles:
            super().profile_run(*args, **kwargs)

    def initialize_kv_cache(self, kv_cache_config: KVCacheConfig, *args: Any, **kwargs: Any) -> None:
        self._leave_packed_inputs()
        self._step_inputs = None
        super().initialize_kv_cache(kv_cache_config, *args, **kwargs)
        if self._can_pack_inputs():
            tables = self.input_batch.block_table.block_tables
            widths = tuple(table.max_num_blocks_per_req for table in tables)
            self._step_inputs = StepInputs(self.max_num_tokens, self.max_num_reqs, widths, self.device)

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
            if isinstance(group.kv_cache_spec, AttentionSpec):
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
        if self._step_inputs is None:
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
                self._run_packed_dummy(replace(desc, num_tokens=1, num_reqs=1), CUDAGraphMode.NONE)
                torch.npu.synchronize()
            with self.synchronize_input_prep():
                self._run_packed_dummy(desc, cudagraph_runtime_mode)
        self._warmed_up = True

    @torch.inference_mode()
    def _run_packed_dummy(self, desc: BatchDescriptor, mode: CUDAGraphMode) -> None:
        """A forward pass of a decode batch that writes nothing to the cache, on the buffers its replays will use."""
        requests = desc.num_reqs
        layout = self._step_inputs.layout(desc.num_tokens, requests)
        arrays = self._step_inputs.host_arrays(layout)
        for name, array in arrays.items():
            array.fill(-1 if name.startswith("slots") else 0)
        arrays["query_start_loc"][:] = np.arange(requests + 1)
        arrays["seq_lens"].fill(1)
        self.query_start_loc.np[: requests + 1] = np.arange(requests + 1)
        self.optimistic_seq_lens_cpu[:requests] = 1
        self._bind_packed_inputs(layout)
        slots, slots_by_layer = self._get_slot_mappings(desc.num_tokens, requests, desc.num_tokens)
        metadata, _ = self._build_attention_metadata(
            num_tokens=desc.num_tokens, num_reqs=requests, max_query_len=1, slot_mappings=slots
        )
        with set_forward_context(
            metadata,
            self.vllm_config,
            num_tokens=desc.num_tokens,
            cudagraph_runtime_mode=mode,
            batch_descriptor=desc,
            slot_mapping=slots_by_layer,
            is_padding=self._prepare_padding_mask(desc.num_tokens, desc.num_tokens),
        ):
            self.model(
                input_ids=self.input_ids.gpu[: desc.num_tokens],
                positions=self.positions[: desc.num_tokens],
                intermediate_tensors=self._dummy_intermediate_tensors(desc.num_tokens),
                inputs_embeds=None,
            )

    def _dummy_intermediate_tensors(self, tokens: int) -> Any:
        """What an earlier pipeline stage would send; None on the first."""
        from vllm.distributed.parallel_state import get_pp_group

        if get_pp_group().is_first_rank:
            return None
        if self.intermediate_tensors is None:
            self.intermediate_tensors = self.model.make_empty_intermediate_tensors(
                batch_size=self.max_num_tokens, dtype=self.model_config.dtype, device=self.device
            )
        return self.sync_and_gather_intermediate_tensors(tokens, None, False)

    def graph_count(self) -> int:
        if self.compilation_config.cudagraph_mode == CUDAGraphMode.NONE:
            return 0
        return len(self.compilation_config.cudagraph_capture_sizes or [])

    def graph_memory_estimate(self) -> int:
        """Bytes to keep back for the graphs that will be captured after the KV cache is allocated."""
        if not self.graph_count():
            return 0
        return self.profile_cudagraph_memory()

    # ------------------------------------------------------------------ the inputs of a step

    def _can_pack_inputs(self) -> bool:
        """Whether the host alone knows this model's step inputs (see step_inputs); otherwise upstream prepares them."""
        groups = self.kv_cache_config.kv_cache_groups
        return (
            self.speculative_config is None
            and not self.uses_mrope
            and not self.enable_prompt_embeds
            and not self.supports_mm_inputs
            and not self.model_config.is_encoder_decoder
            and self.parallel_config.data_parallel_size == 1
            and self.dcp_world_size == 1
            and bool(groups)
            and all(
                isinstance(group.kv_cache_spec, AttentionSpec)
                and not isinstance(group.kv_cache_spec, EncoderOnlyAttentionSpec)
                for group in groups
            )
        )

    def _prepare_inputs(self, scheduler_output: Any, num_scheduled_tokens: np.ndarray) -> tuple[Any, Any, int]:
        """Prepare a step; returns (which hidden states to sample from, speculation metadata, tokens sampled a row)."""
        if self._step_inputs is None:
            prepared = super()._prepare_inputs(scheduler_output, num_scheduled_tokens)
            self._subtract_refused_drafts()
            return prepared
        requests, tokens = self.input_batch.num_reqs, scheduler_output.total_num_scheduled_tokens
        layout = self._layout_of(tokens, requests, int(num_scheduled_tokens.max()))
        arrays = self._step_inputs.host_arrays(layout)
        owner, positions = fill_batch(
            arrays,
            num_scheduled_tokens,
            self.input_batch.num_computed_tokens_cpu[:requests],
            self.input_batch.token_ids_cpu,
        )
        for group, table in enumerate(self.input_batch.block_table.block_tables):
            blocks = table.block_table.np[:requests]
            fill_slots(arrays[f"slots{group}"], blocks, table.block_size, owner, positions)
            self._step_inputs.fill_table(layout, group, blocks, table.num_blocks_per_row[:requests])
        self._keep_host_copies(arrays, requests)
        sampled, in_order = self._place_sampled_tokens(arrays, requests)
        views = self._bind_packed_inputs(layout)
        self._copy_sampled_tokens(views, sampled, in_order)
        if self.lora_config:
            self.set_active_loras(self.input_batch, num_scheduled_tokens, np.ones(requests, dtype=np.int32))
        if tokens == requests:  # every request has one token: no need to pick
            return slice(0, requests), None, 1
        return views["logits_indices"][:requests], None, 1

    def _subtract_refused_drafts(self) -> None:
        """Correct the lengths on the host, which count drafts of the last step that were refused.

        Asynchronous scheduling does not wait for their number, and with lengths on the device nothing has to. Operators
        that take lengths from the host must wait until the last step has sampled; its own drafter still runs meanwhile.
        """
        if not self.use_async_spec_decode or self.chip.graph_lengths_on_device:
            return
        previous = self.prev_positions.np[: self.input_batch.num_reqs]
        sampled = self._get_valid_sampled_token_count()
        for request in np.flatnonzero(previous >= 0) if sampled else ():
            drafts = self.prev_num_draft_tokens.np[previous[request]]
            if drafts:
                self.optimistic_seq_lens_cpu[request] -= int(drafts) + 1 - sampled[previous[request]]

    def _determine_batch_execution_and_padding(
        self, *args: Any, force_uniform_decode: bool | None = None, **kwargs: Any
    ) -> Any:
        """Keep a recurrent model's prompts, however short, out of the decode graphs: those go on from a state."""
        if force_uniform_decode is None and self.model_config.is_hybrid:
            requests = self.input_batch.num_reqs
            if self.speculative_config is not None:
                prefills = self.num_decode_draft_tokens.np[:requests] < 0
            else:
                prefills = (
                    self.input_batch.num_computed_tokens_cpu[:requests] < self.input_batch.num_prompt_tokens[:requests]
                )
            if prefills.any():
                force_uniform_decode = False
        return super()._determine_batch_execution_and_padding(
            *args, force_uniform_decode=force_uniform_decode, **kwargs
        )

    def _layout_of(self, tokens: int, requests: int, longest: int) -> Layout:
        """The layout of this batch as the dispatcher is going to pad it."""
        uniform = self._is_uniform_decode(longest, self.uniform_decode_query_len, tokens, requests)
        loras = len(self.input_batch.lora_id_to_lora_request)
        _, desc = self.cudagraph_dispatcher.dispatch(
            tokens, uniform_decode=uniform, has_lora=loras > 0, num_active_loras=loras
        )
        return self._step_inputs.layout(desc.num_tokens, desc.num_reqs or requests)

    def _keep_host_copies(self, arrays: dict[str, np.ndarray], requests: int) -> None:
        """Update the host arrays that the rest of the runner and the attention metadata read."""
        padded = len(arrays["seq_lens"])
        self.query_start_loc.np[: padded + 1] = arrays["query_start_loc"]
        lengths = self.optimistic_seq_lens_cpu.numpy()
        lengths[:padded] = arrays["seq_lens"]
        lengths[padded:] = 0
        known = np.fromiter((self.requests[name].num_tokens for name in self.input_batch.req_ids), np.int32, requests)
        self.discard_request_mask.np[:requests] = lengths[:requests] < known
        self._compute_prev_positions(requests)

    def _place_sampled_tokens(self, arrays: dict[str, np.ndarray], requests: int) -> tuple[int, bool]:
        if self._pp_recv_work is not None:
            self._pp_recv_work.wait()
            self._pp_recv_work = None
        if self.input_batch.prev_sampled_token_ids is None:
            return 0, True
        return fill_sampled(arrays, self.prev_positions.np[:requests], arrays["query_start_loc"][1 : requests + 1])

    def _copy_sampled_tokens(self, views: dict[str, torch.Tensor], count: int, in_order: bool) -> None:
        """Put tokens sampled in the last step, which the host has not seen yet, into this step's."""
        if not count:
            return
        sampled = self.input_batch.prev_sampled_token_ids[:, 0]
        if in_order:
            views["input_ids"][:count].copy_(sampled[:count])
        else:
            chosen = sampled[views["sampled_rows"][:count]].to(torch.int32)
            views["input_ids"].scatter_(0, views["sampled_targets"][:count], chosen)

    def _bind_packed_inputs(self, layout: Layout) -> dict[str, torch.Tensor]:
        """Upload the step and let the runner's buffers be views of what arrived."""
        if self._packed is None:
            tables = self.input_batch.block_table.block_tables
            self._upstream_buffers = {
                "input_ids": self.input_ids.gpu,
                "positions": self.positions,
                "query_start_loc": self.query_start_loc.gpu,
                "seq_lens": self.seq_lens,
                **{f"slots{group}": table.slot_mapping.gpu for group, table in enumerate(tables)},
                **{f"block_table{group}": table.block_table.gpu for group, table in enumerate(tables)},
            }
        self._packed = layout
        views = self._step_inputs.upload(layout)
        self._set_buffers(views)
        return views

    def _set_buffers(self, buffers: dict[str, torch.Tensor]) -> None:
        self.input_ids.gpu = buffers["input_ids"]
        self.positions = buffers["positions"]
        self.query_start_loc.gpu = buffers["query_start_loc"]
        self.seq_lens = buffers["seq_lens"]
        for group, table in enumerate(self.input_batch.block_table.block_tables):
            table.slot_mapping.gpu = buffers[f"slots{group}"]
            table.block_table.gpu = buffers[f"block_table{group}"]

    def _leave_packed_inputs(self) -> None:
        """Give the runner its own buffers back, for the dummy runs of vLLM that fill them."""
        if self._packed is not None:
            self._set_buffers(self._upstream_buffers)
            self._packed = None

    def _dummy_run(self, *args: Any, **kwargs: Any) -> Any:
        self._leave_packed_inputs()
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
        if self._packed is None:
            return super()._get_slot_mappings(num_tokens_padded, num_reqs_padded, num_tokens_unpadded, ubatch_slices)
        by_group = {
            group: table.slot_mapping.gpu[:num_tokens_padded]
            for group, table in enumerate(self.input_batch.block_table.block_tables)
        }
        groups = self.kv_cache_config.kv_cache_groups
        return by_group, {name: by_group[index] for index, group in enumerate(groups) for name in group.layer_names}

    def _prepare_padding_mask(self, num_tokens_unpadded: int, num_tokens_padded: int) -> torch.Tensor:
        if self._packed is None:
            return super()._prepare_padding_mask(num_tokens_unpadded, num_tokens_padded)
        return self._step_inputs.on_device(self._packed)["is_padding"]

    def _build_attention_metadata(self, *args: Any, **kwargs: Any) -> Any:
        """Each layer's attention metadata, and None for a drafter's; of packed inputs, without slicing them again."""
        if self._packed is None:
            return super()._build_attention_metadata(*args, **kwargs)
        requests = self._packed.requests
        tokens = kwargs.get("num_tokens_padded") or kwargs["num_tokens"]  # attention is not padded outside graphs
        views = self._step_inputs.on_device(self._packed)
        lengths = self.optimistic_seq_lens_cpu[:requests]
        metadata: dict[str, Any] = {}
        for index, groups in enumerate(self.attn_groups):
            common = CommonAttentionMetadata(
                query_start_loc=views["query_start_loc"],
                query_start_loc_cpu=self.query_start_loc.cpu[: requests + 1],
                seq_lens=views["seq_lens"],
                seq_lens_cpu_upper_bound=lengths,
                num_reqs=requests,
                num_actual_tokens=tokens,
                max_query_len=kwargs["max_query_len"],
                max_seq_len=int(lengths.numpy().max()),
                block_table_tensor=views[f"block_table{index}"],
                slot_mapping=views[f"slots{index}"][:tokens],
                positions=views["positions"][:tokens],
            )
            for group in groups:
                metadata.update(dict.fromkeys(group.layer_names, group.build_metadata(common)))
        return metadata, None

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
