"""vLLM's command line, ready sooner: `python -m ascend_cli.serving.bootstrap serve MODEL` is `vllm serve MODEL`.

Importing vLLM, torch and transformers makes a million objects that stay for life. Collecting garbage while they
are made is a fifth of the import's time and finds nothing.
"""

from __future__ import annotations

import gc
import sys
from typing import NoReturn


def main() -> NoReturn:
    gc.disable()
    # `serve` imports it once it has read its flags, which would be after garbage collection is on again.
    import vllm.entrypoints.openai.api_server  # noqa: F401
    from vllm.entrypoints.cli.main import main as run_vllm

    gc.freeze()
    gc.enable()
    sys.argv[0] = "vllm"
    sys.exit(run_vllm())


if __name__ == "__main__":
    main()
