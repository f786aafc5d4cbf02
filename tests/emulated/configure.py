"""Makes a server's configuration, without the server: `python configure.py MODEL '{"option": value}'` prints JSON."""

from __future__ import annotations

import json
import sys


def main() -> None:
    import torch
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import UsageContext

    arguments = EngineArgs(model=sys.argv[1], **json.loads(sys.argv[2]))
    config = arguments.create_engine_config(UsageContext.OPENAI_API_SERVER)
    compilation = config.compilation_config
    facts = {
        "dtype": str(config.model_config.dtype),
        "graph_mode": compilation.cudagraph_mode.name,
        "graph_sizes": compilation.cudagraph_capture_sizes,
        "step_tokens": config.scheduler_config.max_num_batched_tokens,
        "worker": config.parallel_config.worker_cls,
        "opened_device": torch.npu.is_initialized(),
    }
    print("CONFIGURATION " + json.dumps(facts))


if __name__ == "__main__":
    main()
