"""Plain-torch forms of the Triton kernels that vLLM's V1 path launches, by the dispatcher's names for them."""

from __future__ import annotations

from collections.abc import Callable

from ascend_plugin.kernels import rejection, slot_mapping, speculation

OVERRIDES: dict[str, Callable[..., None]] = {
    "vllm.v1.worker.block_table.ComputeSlotMappingKernel.kernel": slot_mapping.compute_slot_mapping,
    "vllm.v1.sample.rejection_sampler.rejection_greedy_sample_kernel": rejection.rejection_greedy_sample,
    "vllm.v1.sample.rejection_sampler.rejection_random_sample_kernel": rejection.rejection_random_sample,
    "vllm.v1.sample.rejection_sampler.expand_kernel": rejection.expand,
    "vllm.v1.sample.rejection_sampler.sample_recovered_tokens_kernel": rejection.sample_recovered_tokens,
    "vllm.v1.spec_decode.utils.eagle_step_slot_mapping_metadata_kernel": speculation.eagle_step_slot_mapping,
    "vllm.v1.spec_decode.utils.eagle_prepare_inputs_padded_kernel": speculation.eagle_prepare_inputs_padded,
    "vllm.v1.spec_decode.utils.eagle_prepare_next_token_padded_kernel": speculation.eagle_prepare_next_token_padded,
}
