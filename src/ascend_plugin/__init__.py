"""vLLM on Huawei Ascend NPUs: the platform plugin. Importing this package loads nothing heavy and touches no device."""

from __future__ import annotations

import importlib.util
import os

PLATFORM = "ascend_plugin.platform.AscendPlatform"

ENVIRONMENT_DEFAULTS = {
    # vLLM's second model runner is written in Triton, which Ascend 310P has not.
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    # The front end never opens a device, so its children may be forked and need not import everything again, which is
    # much of a start-up. Where something else has opened one, configuration.spawn_if_device_is_open spawns instead.
    "VLLM_WORKER_MULTIPROC_METHOD": "fork",
    # One BLAS thread a worker: the host only launches, and spinning threads slow launches down.
    "OMP_NUM_THREADS": "1",
    # HCCL waits half an hour (1,836 s) for a rank that is gone. No step takes minutes; a 310P counts in steps of 68 s.
    "HCCL_EXEC_TIMEOUT": "204",
}


def register() -> str | None:
    """Entry point of vllm.platform_plugins: the platform class if this machine has an Ascend chip, else None.

    vLLM calls it several times in each process and swallows exceptions, so it is cheap, can be repeated, and says
    what the user must know in a SystemExit.
    """
    if importlib.util.find_spec("torch_npu") is None:
        return None
    from ascend_plugin import compat, detection, preconditions

    compat.prepare_process()  # where there is no chip too: whoever imports vLLM imports torchvision
    if detection.soc_version() is None:
        if reason := detection.load_error():
            preconditions.warn_of_missing_cann(reason)
        return None
    preconditions.refuse_two_plugins()
    preconditions.refuse_other_vllm()
    for name, value in ENVIRONMENT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    from ascend_plugin.service import orphans

    orphans.prepare()
    return PLATFORM
