"""A server's default of max_num_batched_tokens is the chip's, where the chip table has one.

Reason: vLLM chooses it by memory, TPU and CPU; a platform is asked when a user's choice can no longer be told from the
default. It is also the last place before vLLM complains of the steps of a model with an encoder, whatever the steps,
so that a model that cannot run is refused here for its true reason. vLLM's own changes to a model's configuration read
fields that transformers no longer writes: they are filled in before.
Upstream: vllm/engine/arg_utils.py, EngineArgs.get_batch_defaults and the method below, which calls it;
vllm/config/model.py, ModelConfig._try_verify_and_update_model_config, with the classes of
vllm/model_executor/models/config.py.
Held by: tests/upstream/test_patches.py, tests/unit/plugin/test_choices.py, tests/emulated/test_configuration.py.
Exit: when get_batch_defaults asks the platform; of the fields, when vLLM asks for them with a default.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ascend_plugin import configuration, detection

if TYPE_CHECKING:
    from vllm.config import ModelConfig

    from ascend_facts.chips import ChipSpec


def apply() -> None:
    from vllm.config import ModelConfig
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import UsageContext

    set_defaults = EngineArgs._set_default_max_num_seqs_and_batched_tokens_args
    if hasattr(set_defaults, "__wrapped__"):
        return

    @functools.wraps(set_defaults)
    def set_with_chip(args: Any, usage_context: Any, model_config: Any, parallel_config: Any) -> None:
        configuration.check_decoder(model_config)
        left_open = args.max_num_batched_tokens is None
        set_defaults(args, usage_context, model_config, parallel_config)
        drafts = args.speculative_config is not None  # whose slots come on top
        if not left_open or drafts or not args.enable_chunked_prefill:
            return
        if usage_context is UsageContext.OPENAI_API_SERVER and args.performance_mode != "throughput":
            bound = server_step_tokens(model_config, detection.current_chip())
            if bound:
                args.max_num_batched_tokens = min(args.max_num_batched_tokens, max(bound, args.max_num_seqs))

    change: Any = ModelConfig._try_verify_and_update_model_config

    @functools.wraps(change)
    def change_completed(self: Any) -> None:
        configuration.complete_fields(self.hf_config)
        change(self)

    replaced: Any = EngineArgs  # mypy holds its methods to what they were
    replaced._set_default_max_num_seqs_and_batched_tokens_args = set_with_chip
    models: Any = ModelConfig
    models._try_verify_and_update_model_config = change_completed


def server_step_tokens(model_config: ModelConfig, chip: ChipSpec) -> int:
    """Most tokens that a server's step should have on this chip; 0 leaves the choice to vLLM.

    vLLM's 2,048 put eight prompts of 256 tokens into one step, and the first waits for the last. On a chip that is
    bound by its cube from a few hundred tokens on, smaller steps cost nothing and each prompt waits for itself. Not
    for experts (few tokens reach each, so that larger steps save reading), recurrent layers (whose cache blocks may
    be larger) and images (which must fit into a step whole).
    """
    special = model_config.is_moe or model_config.is_hybrid or model_config.is_multimodal_model
    return 0 if special or model_config.runner_type != "generate" else chip.server_step_tokens
