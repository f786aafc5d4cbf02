"""`ascend`: the commands, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import errno
import os
import sys

import typer

from ascend_cli.bench.command import app as bench
from ascend_cli.deploy.command import deploy
from ascend_cli.doctor.command import doctor
from ascend_cli.emulate import emulate
from ascend_cli.errors import OK, USAGE, AscendError
from ascend_cli.models.command import models
from ascend_cli.plan.command import plan
from ascend_cli.serving.command import serve
from ascend_cli.top.command import top

# typer carries its own copy of click since 0.26 and uses the click package before: take the class that it raises.
INTERRUPTED = 130
CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="ascend",
    help="From a bare server with Ascend cards to a measured, safe service.",
    epilog="Exit codes: 0 good, 1 done but the answer is bad, 2 nothing done (the line printed says what to do).",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: importing rich for it would double the time to answer
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("doctor", short_help="Check this machine; say how to fix what is wrong.")(doctor)
app.command("plan", short_help="Does a model fit, on how many chips, how fast at best?")(plan)
app.command("deploy", short_help="Docker command, compose file or manifests for a model.")(deploy)
app.command("serve", short_help="Plan, fetch and serve a model on the chips here.")(serve)
app.add_typer(bench, name="bench", short_help="Measure, check, compare, report.")
app.command("top", short_help="Chips beside the served model, live.")(top)
app.command("models", short_help="Does my model run on my chip? As tested.")(models)
app.command("emulate", short_help="Run any command on emulated chips.")(emulate)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        print(f"ascend-plugin {metadata.version('ascend-plugin')}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: bool = typer.Option(False, "--version", is_eager=True, callback=_show_version, help="Print the version."),
) -> None: ...


def run(arguments: list[str] | None = None, application: typer.Typer = app, name: str = "ascend") -> int:
    """Run one command line and return its exit code; every foreseen error ends as one line on standard error."""
    _prepare_streams()
    given = sys.argv[1:] if arguments is None else arguments
    if application is app and not given:
        given = ["--help"]
    try:
        result = application(given, standalone_mode=False, prog_name=name)
    except AscendError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return error.exit_code
    except CommandLineError as error:
        context = getattr(error, "ctx", None)
        # A group without a command raises an error whose message is its help.
        is_help = type(error).__name__ == "NoArgsIsHelpError"
        print(context.get_help() if context is not None and is_help else f"{name}: {_one_line(error)}", file=sys.stderr)
        return USAGE
    except (BrokenPipeError, SystemExit) as error:  # `ascend ... | head`: the reader has what it wanted
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise  # click turns a broken pipe into an exit with 1
        _drop_output()
        return OK
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return _unwritable(error, name)
    return result if isinstance(result, int) else 0


def _one_line(error: Exception) -> str:
    """The message of a command-line error with the command to ask for help."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "ascend"
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return f"{' '.join(message.split()).rstrip('.')}. See `{path} --help`." if message else f"See `{path} --help`."


def _prepare_streams() -> None:
    """Outputs that take every text: a closed one is no error, and a character that one lacks is shown as `?`."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # started with `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure") and (stream.encoding or "").lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="replace")


def _drop_output() -> None:
    """Nobody reads: let what is still buffered go nowhere, so that the interpreter's own last flush does not fail."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):
        return


def _unwritable(error: OSError, name: str) -> int:
    _drop_output()
    print(f"{name}: the output cannot be written ({error.strerror}): make room, or write elsewhere", file=sys.stderr)
    return USAGE


def main() -> None:
    code = run()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        code = OK
    except OSError as error:
        code = _unwritable(error, "ascend")
    sys.exit(code)
