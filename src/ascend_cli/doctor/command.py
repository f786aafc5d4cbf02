"""`ascend doctor`: the command line of the doctor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ascend_cli import options
from ascend_cli.errors import BAD_ANSWER, OK, UsageError

if TYPE_CHECKING:
    from ascend_cli.doctor.findings import Finding


def doctor(
    vllm_version: Annotated[str, typer.Option(help="Only list the advisories open for this vLLM version.")] = "",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Leave out what is in order.")] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="Try every form of an operator that the plugin launches, on the chip.")
    ] = False,
    first_run: Annotated[
        str,
        typer.Option(metavar="MODEL", help="Run a model eager, batched, in graphs, on two chips; name what differs."),
    ] = "",
    import_: Annotated[
        str, typer.Option("--import", metavar="BUNDLE", help="Read the bundle that `pytest --hardware` wrote.")
    ] = "",
    index: Annotated[int, typer.Option("--chip", min=0, help="The chip to probe, as the process numbers them.")] = 0,
    group: Annotated[
        list[str] | None, typer.Option(metavar="GROUP", help="Probe only these groups of cases; may be repeated.")
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write the result of the probe.")] = None,
    root: options.Root = Path("/"),
    json: options.Json = False,
) -> int:
    """Is this machine ready to serve? What is wrong, why it matters, and the command that fixes it.

    Looks at driver, firmware, CANN, Python packages, chips and their pairs, memory, device nodes and their
    permissions, shared memory, Docker, and the open advisories of the installed vLLM. Exit code 1 if something must
    be fixed before a model can be served; warnings and notes leave it 0.

    --probe takes about two minutes on an idle chip and needs no model. Exit code 1 where something is wrong that the
    plugin does not know to avoid. --first-run needs a model: exit code 1 where a step differs. See the page of the
    command for both.
    """
    if sum(map(bool, (probe, first_run, import_, vllm_version))) > 1:
        raise UsageError("--probe, --first-run, --import and --vllm-version exclude each other: give one of them")
    if probe:
        from ascend_cli.doctor.probe.case import GROUPS
        from ascend_cli.doctor.probe.run import probe as run_probe

        return run_probe(index, tuple(group or GROUPS), output, json, quiet)
    if first_run:
        from ascend_cli.doctor.first_run.command import first_run as run_first

        return run_first(first_run, output, json)
    if import_:
        from ascend_cli.doctor.bundle import import_bundle

        return import_bundle(Path(import_), json)
    if group or output:
        raise UsageError("--group and --output belong to --probe: add it")
    return _diagnose(vllm_version, quiet, root, json)


def _diagnose(vllm_version: str, quiet: bool, root: Path, json: bool) -> int:
    """The checks of the machine itself."""
    from ascend_cli.doctor.chips import check_chips
    from ascend_cli.doctor.containers import check_containers
    from ascend_cli.doctor.findings import Status
    from ascend_cli.doctor.variables import check_variables
    from ascend_cli.doctor.versions import check_advisories, check_cann, check_driver, check_packages, installed
    from ascend_cli.hardware import Host
    from ascend_cli.hardware.host import is_emulated
    from ascend_cli.output import emit_json

    if not root.is_dir():
        raise UsageError(f"--root {root} is not a folder")
    findings: list[Finding] = []
    if vllm_version:
        findings = list(check_advisories(vllm_version))
    else:
        host = Host(root)
        emulated = host.is_this_machine and is_emulated()
        packages = installed()
        findings += check_driver(host, emulated)
        findings += check_cann(host, emulated)
        findings += check_packages(packages)
        findings += check_chips(host, emulated)
        findings += check_variables(host)
        findings += check_containers(host)
        findings += check_advisories(packages["vllm"])
    worst_is_error = any(finding.status is Status.ERROR for finding in findings)
    if json:
        emit_json({"schema": "ascend.doctor/1", "fit_to_serve": not worst_is_error, "findings": findings})
    else:
        _show(findings, quiet)
    return BAD_ANSWER if worst_is_error else OK


def _show(findings: list[Finding], quiet: bool) -> None:
    from ascend_cli.doctor.findings import Status
    from ascend_cli.output import console

    marks = {
        Status.OK: "[green]ok     [/green]",
        Status.NOTE: "[blue]note   [/blue]",
        Status.WARNING: "[yellow]warning[/yellow]",
        Status.ERROR: "[red]ERROR  [/red]",
    }
    out = console()
    for finding in findings:
        if finding.status is Status.OK and quiet:
            continue
        out.print(f"{marks[finding.status]} [bold]{finding.check}[/bold]: ", end="")
        out.print(finding.what, markup=False, soft_wrap=True)
        if finding.why:
            out.print(f"          why: {finding.why}", markup=False, soft_wrap=True)
        if finding.fix:
            out.print(f"          do:  {finding.fix}", markup=False, soft_wrap=True)
    errors = sum(finding.status is Status.ERROR for finding in findings)
    warnings = sum(finding.status is Status.WARNING for finding in findings)
    out.print(f"\n{errors} to fix, {warnings} warnings.")
