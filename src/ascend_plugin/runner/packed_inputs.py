"""The runner's step inputs as views of one upload: what binds them, fills them and hands them on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from vllm.config import CUDAGraphMode
from vllm.forward_context import BatchDescriptor, set_forward_context
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.kv_cache_interface import AttentionSpec, EncoderOnlyAttentionSpec, MambaSpec
from vllm.v1.spec_decode.metadata import SpecDecodeMetadata

from ascend_plugin.ops.gated_delta_metadata import AscendGdnMetadataBuilder, HostStates, StepMetadata
from ascend_plugin.runner import fill
from ascend_plugin.runner.step_buffer import Layout, ModelShape, StepBuffer

NO_TOKENS = 0, True, 0


class PackedInputs:
    """Step inputs of one runner, which read them where upstream's own buffers would be.

    Two invariants hold from bind() to release():

    * every step buffer of the runner is a view of the packed buffer, at an address that the layout alone decides, so
      that a graph finds the values of each of its replays; release() gives the runner its own buffers back, which
      vLLM's dummy runs fill;
    * the layout is padded as vLLM's graph dispatch pads the step. We ask the dispatcher before upstream does, so that
      agree() compares both answers and ends a step that would otherwise read another batch's values.
    """

    def __init__(self, runner: Any) -> None:
        self.runner = runner
        self._specs = [group.kv_cache_spec for group in runner.kv_cache_config.kv_cache_groups]
        widths = tuple(self._table_width(index) for index in range(len(self._specs)))
        rows = runner.mrope_positions.gpu.shape[0] if runner.uses_mrope else 0
        model = ModelShape(widths, rows, runner.num_spec_tokens)
        self.buffer = StepBuffer(runner.max_num_tokens, runner.max_num_reqs, model, runner.device)
        self.layout: Layout | None = None  # of what is bound; None: the runner's buffers are its own
        self._own: dict[str, Any] = {}
        self._last_tokens = NO_TOKENS  # that this step takes from the last one
        self._judged: SpecDecodeMetadata | None = None  # which still lacks its drafts
        if self._recurrent():  # nothing on the device reads these counts: states are looked up on the host
            runner.num_accepted_tokens.copy_to_gpu = lambda count=None: runner.num_accepted_tokens.gpu

    @staticmethod
    def suit(runner: Any) -> bool:
        """Whether the host knows all step inputs of this model; otherwise upstream prepares them."""
        groups = runner.kv_cache_config.kv_cache_groups
        speculation, drafter = runner.speculative_config, getattr(runner, "drafter", None)
        own_tables = ("set_per_group_attn_metadata", "set_per_group_block_table")  # of Step 3.5 and Gemma 4
        return (
            not runner.enable_prompt_embeds
            and not runner.is_multimodal_pruning_enabled  # which moves positions once pictures are encoded
            and not runner.model_config.is_encoder_decoder
            and runner.parallel_config.data_parallel_size == 1
            and runner.dcp_world_size == 1
            and (speculation is None or not speculation.use_ngram_gpu())
            and not any(hasattr(drafter, name) for name in own_tables)
            and bool(groups)
            and all(PackedInputs._knows(group.kv_cache_spec, runner, index) for index, group in enumerate(groups))
        )

    @staticmethod
    def _knows(spec: Any, runner: Any, group: int) -> bool:
        if isinstance(spec, MambaSpec):  # of which we know how gated delta nets find their states
            builders = [part.get_metadata_builder() for part in runner.attn_groups[group]]
            return all(isinstance(builder, AscendGdnMetadataBuilder) for builder in builders)
        return isinstance(spec, AttentionSpec)

    @property
    def _tables(self) -> list[Any]:
        return self.runner.input_batch.block_table.block_tables

    def _table_width(self, group: int) -> int | None:
        """Blocks of a row of a group's table; None where the group holds recurrent states."""
        if isinstance(self._specs[group], MambaSpec):
            return None
        return self._tables[group].max_num_blocks_per_req if self._is_cached(group) else 1

    def _is_cached(self, group: int) -> bool:
        """Whether a group keeps anything; an encoder's layers, the last group, have neither blocks nor a table."""
        return not isinstance(self._specs[group], EncoderOnlyAttentionSpec)

    @property
    def _bound(self) -> Layout:
        """The layout of this step. Raises RuntimeError where none is bound."""
        if self.layout is None:
            raise RuntimeError("Report this with the log: a step was sent before its inputs were laid out.")
        return self.layout

    # ------------------------------------------------------------------ whose buffers

    def bind(self, layout: Layout) -> dict[str, torch.Tensor]:
        """Let the runner's buffers be the views of a layout; what they are to hold is sent by attention_metadata()."""
        if self.layout is None:
            self._own = self._buffers()
        self.layout = layout
        views = self.buffer.on_device(layout)
        self._set_buffers(views)
        return views

    def release(self) -> None:
        """Give the runner its own buffers back."""
        if self.layout is not None:
            self._set_buffers(self._own)
            self.layout = None

    def agree(self, tokens: int) -> None:
        """Compare the padding of what is bound with what upstream decided. Raises RuntimeError."""
        if tokens != self._bound.tokens:
            raise RuntimeError(
                f"Start with --enforce-eager and report this: step inputs were laid out for {self._bound.tokens} "
                f"tokens, and vLLM's graph dispatch pads the step to {tokens}. This plugin and this vLLM do not match."
            )

    def _buffers(self) -> dict[str, Any]:
        runner = self.runner
        found = {
            "input_ids": runner.input_ids.gpu,
            "positions": runner.positions,
            "query_start_loc": runner.query_start_loc.gpu,
            "seq_lens": runner.seq_lens,
        }
        if runner.uses_mrope:
            found["mrope_positions"] = runner.mrope_positions.gpu
        if runner.speculative_config is not None:
            found["discard_request_mask"] = runner.discard_request_mask.gpu
        for group in filter(self._is_cached, self.buffer.tables):
            found[f"slots{group}"] = self._tables[group].slot_mapping.gpu
            found[f"block_table{group}"] = self._tables[group].block_table.gpu
        return found

    def _set_buffers(self, buffers: dict[str, Any]) -> None:
        runner = self.runner
        runner.input_ids.gpu = buffers["input_ids"]
        runner.positions = buffers["positions"]
        runner.query_start_loc.gpu = buffers["query_start_loc"]
        runner.seq_lens = buffers["seq_lens"]
        if runner.uses_mrope:
            runner.mrope_positions.gpu = buffers["mrope_positions"]
        if runner.speculative_config is not None:
            runner.discard_request_mask.gpu = buffers["discard_request_mask"]
        for group in filter(self._is_cached, self.buffer.tables):
            self._tables[group].slot_mapping.gpu = buffers[f"slots{group}"]
            self._tables[group].block_table.gpu = buffers[f"block_table{group}"]

    # ------------------------------------------------------------------ a step

    def prepare(self, scheduler_output: Any, scheduled: np.ndarray) -> tuple[Any, SpecDecodeMetadata | None, int]:
        """Prepare a step; returns (which hidden states to sample from, speculation metadata, tokens sampled a row)."""
        runner = self.runner
        requests, tokens = runner.input_batch.num_reqs, scheduler_output.total_num_scheduled_tokens
        computed = runner.input_batch.num_computed_tokens_cpu[:requests]
        drafts = self._drafts(scheduler_output, scheduled, computed)
        layout = self._layout_of(tokens, requests, int(scheduled.max()))
        arrays = self.buffer.host_arrays(layout)
        owner, positions = fill.fill_batch(
            arrays, scheduled, computed, runner.input_batch.token_ids_cpu, runner.uniform_decode_query_len
        )
        ends = arrays["query_start_loc"][1 : requests + 1]
        if runner.uses_mrope:
            runner._calc_mrope_positions(scheduler_output)
            arrays["mrope_positions"][:, :tokens] = runner.mrope_positions.np[:, :tokens]
            arrays["mrope_positions"][:, tokens:] = 0
        for group in self.buffer.tables:
            if not self._is_cached(group):
                arrays[f"slots{group}"].fill(-1)
                continue
            table = self._tables[group]
            blocks = table.block_table.np[:requests]
            fill.fill_slots(arrays[f"slots{group}"], blocks, table.block_size, owner, positions)
            self.buffer.fill_table(group, blocks, table.num_blocks_per_row[:requests])
        self._keep_host_copies(arrays, requests, scheduled)
        self._last_tokens = self._place_last_tokens(arrays, requests, ends, drafts)
        if runner.speculative_config is None:
            picked, judged = requests, 0
        else:
            picked, judged = fill.fill_verification(arrays, ends, drafts)
            arrays["discard_request_mask"][:requests] = runner.discard_request_mask.np[:requests]
            arrays["discard_request_mask"][requests:] = True
        views = self.bind(layout)
        if runner.lora_config:
            runner.set_active_loras(runner.input_batch, scheduled, drafts + 1)
        if runner.speculative_config is not None:
            self._judged = self._verification(views, drafts, picked, judged, requests)
            return self._judged.logits_indices, self._judged, int(drafts.max()) + 1
        if tokens == requests:  # every request has one token: no need to pick
            return slice(0, requests), None, 1
        return views["logits_indices"][:requests], None, 1

    def _layout_of(self, tokens: int, requests: int, longest: int) -> Layout:
        """The layout of this batch as the dispatcher is going to pad it."""
        runner = self.runner
        uniform = runner._is_uniform_decode(
            longest, runner.uniform_decode_query_len, tokens, requests, runner.forced_uniform_decode()
        )
        loras = len(runner.input_batch.lora_id_to_lora_request)
        _, desc = runner.cudagraph_dispatcher.dispatch(
            tokens, uniform_decode=uniform, has_lora=loras > 0, num_active_loras=loras
        )
        return self.buffer.layout(desc.num_tokens, desc.num_reqs or requests)

    def _drafts(self, scheduler_output: Any, scheduled: np.ndarray, computed: np.ndarray) -> np.ndarray:
        """[R] drafts of each request in this step; also what vLLM keeps of them for recurrent layers."""
        runner, requests = self.runner, len(scheduled)
        drafts = np.zeros(requests, np.int32)
        if runner.speculative_config is None:
            return drafts
        judged = np.full(requests, -1, np.int32)  # -1: a prompt, whose states have no drafts to take back
        for name, tokens in scheduler_output.scheduled_spec_decode_tokens.items():
            row = runner.input_batch.req_id_to_index[name]
            drafts[row] = len(tokens)
            if scheduled[row] == len(tokens) + 1:
                judged[row] = len(tokens)
        decodes = (computed >= runner.input_batch.num_prompt_tokens[:requests]) & (scheduled == 1)
        judged[(judged < 0) & decodes] = 0
        runner.num_decode_draft_tokens.np[:requests] = judged
        runner.num_decode_draft_tokens.np[requests:].fill(-1)
        return drafts

    def _keep_host_copies(self, arrays: dict[str, np.ndarray], requests: int, scheduled: np.ndarray) -> None:
        """Update the host arrays that the rest of the runner and the attention metadata read."""
        runner, padded = self.runner, len(arrays["seq_lens"])
        runner.query_start_loc.np[: padded + 1] = arrays["query_start_loc"]
        runner.query_start_loc.np[padded + 1 :] = arrays["query_start_loc"][-1]
        lengths = runner.optimistic_seq_lens_cpu.numpy()
        lengths[:padded] = arrays["seq_lens"]
        lengths[padded:] = 0
        known = np.fromiter((runner.requests[name].num_tokens for name in runner.input_batch.req_ids), np.int32)
        # Of both, drafts that were refused since are still part.
        runner.discard_request_mask.np[:requests] = runner.expected_computed_tokens()[:requests] + scheduled < known
        runner._compute_prev_positions(requests)

    def _place_last_tokens(
        self, arrays: dict[str, np.ndarray], requests: int, ends: np.ndarray, drafts: np.ndarray
    ) -> tuple[int, bool, int]:
        """Note where tokens go that the host has not seen: (sampled ones, whether in order, drafts)."""
        runner = self.runner
        if runner._pp_recv_work is not None:
            runner._pp_recv_work.wait()
            runner._pp_recv_work = None
        if runner.input_batch.prev_sampled_token_ids is None:
            return 0, True, 0
        previous = runner.prev_positions.np[:requests]
        count, in_order = fill.fill_sampled(arrays, previous, ends, drafts)
        if not isinstance(runner._draft_token_ids, torch.Tensor):
            return count, in_order, 0
        return count, in_order, fill.fill_drafted(arrays, previous, ends, drafts, runner._draft_token_ids.shape[1])

    def _send(self) -> None:
        """Upload the step, and put tokens of the last one, which the host has not seen yet, into it.

        By index: a copy between device buffers that ends inside a 32-byte block spoils tokens behind it on some chips.
        """
        runner, views = self.runner, self.buffer.upload(self._bound)
        count, in_order, drafts = self._last_tokens
        if count:
            sampled = runner.input_batch.prev_sampled_token_ids[:, 0]
            chosen = sampled[:count] if in_order else sampled.index_select(0, views["sampled_rows"][:count])
            views["input_ids"].index_copy_(0, views["sampled_targets"][:count], chosen.to(torch.int32))
        if drafts:
            proposed = runner._draft_token_ids.to(torch.int32).flatten()
            chosen = proposed.index_select(0, views["draft_rows"][:drafts])
            views["input_ids"].index_copy_(0, views["draft_targets"][:drafts], chosen)
        if self._judged is not None:
            places = views["draft_places"][: len(self._judged.target_logits_indices)]
            self._judged.draft_token_ids = views["input_ids"].index_select(0, places)
        self._last_tokens, self._judged = NO_TOKENS, None

    @staticmethod
    def _verification(
        views: dict[str, torch.Tensor], drafts: np.ndarray, picked: int, judged: int, requests: int
    ) -> SpecDecodeMetadata:
        return SpecDecodeMetadata(
            draft_token_ids=views["draft_places"][:judged],  # _send() puts the drafts here
            num_draft_tokens=drafts.tolist(),
            cu_num_draft_tokens=views["cu_num_draft_tokens"][:requests],
            cu_num_sampled_tokens=views["cu_num_sampled_tokens"][:requests],
            target_logits_indices=views["target_logits_indices"][:judged],
            bonus_logits_indices=views["bonus_logits_indices"][:requests],
            logits_indices=views["logits_indices"][:picked],
        )

    # ------------------------------------------------------------------ handing on

    def slot_mappings(self, tokens: int) -> tuple[dict[int, torch.Tensor], dict[str, torch.Tensor]]:
        """Slots of the first `tokens` tokens by group and by layer; layers with recurrent states have none."""
        views = self.buffer.on_device(self._bound)
        by_group = {group: views[f"slots{group}"][:tokens] for group in self.buffer.tables}
        groups = self.runner.kv_cache_config.kv_cache_groups
        return by_group, {name: by_group[index] for index in by_group for name in groups[index].layer_names}

    def attention_metadata(
        self, tokens: int, requests: int, padded_tokens: int | None, max_query_len: int
    ) -> tuple[dict[str, Any], CommonAttentionMetadata | None]:
        """Send the step; returns each layer's attention metadata, and the drafter's.

        padded_tokens: of a step that replays a graph; attention is not padded outside.
        """
        runner, rows = self.runner, self._bound.requests
        states = {group: self._fill_states(group, requests) for group in self._recurrent()}
        self._send()
        views = self.buffer.on_device(self._bound)
        metadata: dict[str, Any] = {}
        drafting: CommonAttentionMetadata | None = None
        for index, groups in enumerate(runner.attn_groups):
            common = self._common(index, views, padded_tokens or tokens, max_query_len, states.get(index))
            for group in groups:
                metadata.update(dict.fromkeys(group.layer_names, group.build_metadata(common)))
            if runner.speculative_config is not None and drafting is None and self._drafts_from(index):
                drafting = common
        if drafting is not None and (requests != rows or tokens != drafting.num_actual_tokens):
            drafting = drafting.unpadded(tokens, requests)
        return metadata, drafting

    def _drafts_from(self, group: int) -> bool:
        return group in self.buffer.tables and getattr(self.runner.drafter, "kv_cache_gid", group) == group

    def _recurrent(self) -> list[int]:
        return [group for group in range(len(self._specs)) if group not in self.buffer.tables]

    def _fill_states(self, group: int, requests: int) -> HostStates:
        """Note a group's slots of recurrent states; after vLLM has moved states into the blocks of this step."""
        runner, spec = self.runner, self._specs[group]
        arrays, views = self.buffer.host_arrays(self._bound), self.buffer.on_device(self._bound)
        read, written = arrays[f"states_read{group}"], arrays[f"states_written{group}"]
        first = np.zeros(requests, np.int64)
        if runner.cache_config.mamba_cache_mode == "align":  # the running state is in the last block
            first = np.maximum(arrays["seq_lens"][:requests] - 1, 0) // spec.block_size
        accepted = runner.input_batch.num_accepted_tokens_cpu[:requests]
        fill.fill_states(read, written, self._tables[group].block_table.np, first, accepted)
        drafts = None if runner.speculative_config is None else runner.num_decode_draft_tokens.np[: len(read)]
        return HostStates(read, written, drafts, views[f"states_read{group}"], views[f"states_written{group}"])

    def _common(
        self, group: int, views: dict[str, torch.Tensor], tokens: int, max_query_len: int, states: HostStates | None
    ) -> StepMetadata:
        runner, rows = self.runner, self._bound.requests
        lengths = runner.optimistic_seq_lens_cpu[:rows]
        return StepMetadata(
            query_start_loc=views["query_start_loc"],
            query_start_loc_cpu=runner.query_start_loc.cpu[: rows + 1],
            seq_lens=views["seq_lens"],
            seq_lens_cpu_upper_bound=lengths,
            num_reqs=rows,
            num_actual_tokens=tokens,
            max_query_len=max_query_len,
            max_seq_len=int(lengths.numpy().max()),
            # A group of states has neither of the two.
            block_table_tensor=views.get(f"block_table{group}"),  # type: ignore[arg-type]
            slot_mapping=None if states is not None else views[f"slots{group}"][:tokens],  # type: ignore[arg-type]
            positions=views["positions"][:tokens],
            states=states,
        )

    # ------------------------------------------------------------------ graphs

    @torch.inference_mode()
    def run_dummy(self, desc: BatchDescriptor, mode: CUDAGraphMode) -> None:
        """A forward pass of a decode batch that writes nothing to the cache, on the buffers its replays will use."""
        runner, requests = self.runner, desc.num_reqs
        if requests is None:
            raise RuntimeError(
                f"Start with --enforce-eager and report this: a graph of {desc} has no number of requests."
            )
        query_len = desc.num_tokens // requests
        layout = self.buffer.layout(desc.num_tokens, requests)
        arrays = self.buffer.host_arrays(layout)
        for name, array in arrays.items():
            array.fill(-1 if name.startswith("slots") else 0)
        arrays["query_start_loc"][:] = np.arange(requests + 1) * query_len
        arrays["seq_lens"].fill(query_len)
        runner.query_start_loc.np[: requests + 1] = arrays["query_start_loc"]
        # On the host they have a past, which decides the operators.
        runner.optimistic_seq_lens_cpu[:requests] = query_len + 1
        if runner.speculative_config is not None:
            runner.num_decode_draft_tokens.np[:requests] = query_len - 1
        self.bind(layout)
        _, slots_by_layer = self.slot_mappings(desc.num_tokens)
        metadata, _ = self.attention_metadata(desc.num_tokens, requests, None, query_len)
        with set_forward_context(
            metadata,
            runner.vllm_config,
            num_tokens=desc.num_tokens,
            cudagraph_runtime_mode=mode,
            batch_descriptor=desc,
            slot_mapping=slots_by_layer,
            is_padding=self.buffer.on_device(layout)["is_padding"],
        ):
            input_ids, embeddings, others = runner.graph_inputs(desc.num_tokens, requests)
            runner.model(
                input_ids=input_ids,
                positions=runner._get_positions(desc.num_tokens),
                intermediate_tensors=runner.dummy_intermediate_tensors(desc.num_tokens),
                inputs_embeds=embeddings,
                **others,
            )
