"""vLLM's own parser: `python flags.py names` prints its options; `python flags.py MODEL CASES` makes configurations.

CASES: a JSON list of lists of arguments. Each is parsed and made into a server's configuration in a fork of this
process, because vLLM's parser shares defaults that a configuration changes; the answer is what it was refused with.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def names() -> list[str]:
    """One name an option: the first long one."""
    return [
        next((each for each in action.option_strings if each.startswith("--")), action.dest)
        for group in parser()._action_groups
        for action in group._group_actions
        if "--help" not in action.option_strings
    ]


def parser() -> Any:
    from vllm.entrypoints.common.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    return make_arg_parser(FlexibleArgumentParser())


def refused_with(options: Any, model: str, arguments: list[str]) -> str:
    """What the error says, or nothing."""
    from vllm.engine.arg_utils import AsyncEngineArgs  # before the fork, so that it is imported once
    from vllm.usage.usage_lib import UsageContext

    read, write = os.pipe()
    if os.fork() == 0:
        said = ""
        try:
            parsed = options.parse_args(["--model", model, *arguments])
            AsyncEngineArgs.from_cli_args(parsed).create_engine_config(UsageContext.OPENAI_API_SERVER)
        except BaseException as error:
            said = str(error)
        os.write(write, said.encode()[:4000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    os.wait()
    return said


def main() -> None:
    answer: Any
    if sys.argv[1] == "names":
        answer = names()
    else:
        options = parser()
        answer = [refused_with(options, sys.argv[1], arguments) for arguments in json.loads(sys.argv[2])]
    print("ANSWER " + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
