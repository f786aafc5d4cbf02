"""What a server needs beside vLLM's: an end that loses no request, no orphans, and limits in front of the engine.

vLLM takes the middlewares of this package through its own hook (`--middleware`); no function of vLLM is replaced.
`lifetime` comes with every `vllm serve` (see `AscendPlatform.pre_register_and_update`), `limits` with `ascend serve`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

LIFETIME = "ascend_plugin.service.lifetime.Lifetime"
LIMITS = "ascend_plugin.service.limits.Limits"
# The renderings of `ascend deploy` give a server at least twice as long before they kill it.
DRAIN_S = 30


def set_server_defaults(parser: argparse.ArgumentParser) -> None:
    """Make requests end before the server does; `--shutdown-timeout 0` is the user's way to have it at once.

    Only the parser of `vllm serve` has a `--middleware`; those of benchmarks and offline commands are left alone.
    """
    actions = {action.dest for action in parser._actions}
    if {"middleware", "shutdown_timeout"} <= actions:
        parser.set_defaults(middleware=[LIFETIME], shutdown_timeout=DRAIN_S)
