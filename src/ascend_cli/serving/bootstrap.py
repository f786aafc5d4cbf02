"""vLLM's command line, ready sooner: `python -m ascend_cli.serving.bootstrap serve MODEL` is `vllm serve MODEL`.

Importing vLLM, torch and transformers makes a million objects that stay for life. Collecting garbage while they
are made is a fifth of the import's time and finds nothing.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from ascend_facts.first_line import LONGEST, first_line


def main() -> NoReturn:
    gc.disable()
    # `serve` imports it once it has read its flags, which would be after garbage collection is on again.
    import vllm.entrypoints.launchers.api_server.entry  # noqa: F401
    from vllm.entrypoints.cli.main import main as run_vllm

    gc.freeze()
    gc.enable()
    sys.argv[0] = "vllm"
    with tempfile.TemporaryDirectory(prefix="ascend-serve-") as folder:
        last_words = Path(folder) / "last-words"
        os.environ["ASCEND_LAST_WORDS"] = str(last_words)
        code = _code(run_vllm, last_words)
        if code and last_words.is_file():
            print(last_words.read_text(encoding="utf-8"), file=sys.stderr)
    end(code)


def _code(run: object, last_words: Path) -> int:
    """The exit code of a run; what it raised is told in a line, unless the engine has left its own as last words."""
    try:
        run()  # type: ignore[operator]
    except SystemExit as exit_:
        if exit_.code is None or isinstance(exit_.code, int):
            return exit_.code or 0
        print(exit_.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BaseException as error:
        hook = sys.excepthook  # torch_npu's, or the plugin's once a server has lost its engine
        if hook.__module__.startswith("ascend_plugin.") or os.environ.get("VLLM_LOGGING_LEVEL") == "DEBUG":
            hook(type(error), error, error.__traceback__)
        elif not last_words.is_file():
            kind = "" if isinstance(error, ValueError | OSError) else f" ({type(error).__name__})"
            print(
                f"The server could not start: {first_line(error, LONGEST)}{kind}. Mend what this names; "
                "VLLM_LOGGING_LEVEL=DEBUG in its environment shows where it came from.",
                file=sys.stderr,
            )
        return 1
    return 0


def end(code: int) -> NoReturn:
    """Leave without taking the interpreter apart, which ends in pages about objects that extensions leak."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
