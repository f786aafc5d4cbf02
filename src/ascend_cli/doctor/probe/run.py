"""`ascend doctor --probe`: runs the groups, judges, keeps the result for the plugin, shows it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ascend_cli.doctor.probe import findings, parent
from ascend_cli.doctor.probe.case import GROUPS, Outcome, Status
from ascend_cli.errors import BAD_ANSWER, OK, UsageError
from ascend_facts import chips, probes

if TYPE_CHECKING:
    from ascend_cli.doctor.probe.findings import Finding

EMULATED = "This chip is emulated: nothing here is evidence of silicon."


def probe(
    chip: int = 0, groups: Sequence[str] = GROUPS, output: Path | None = None, json: bool = False, quiet: bool = False
) -> int:
    """Probe one chip, keep and show the result; the exit code. Raises UsageError, NothingDone."""
    result, found = measured(chip, groups, quiet=json or quiet)
    kept = keep(result, output, whole=set(groups) == set(GROUPS))
    if json:
        from ascend_cli.output import emit_json

        emit_json({**result.document(), "kept": kept})
    else:
        _show(result, found, kept)
    unknown = result.about["stopped"] or any(not finding.plugin for finding in found)
    return BAD_ANSWER if unknown else OK


def measured(
    chip: int = 0, groups: Sequence[str] = GROUPS, quiet: bool = False
) -> tuple[probes.ProbeResult, list[Finding]]:
    """One run and what it means. Raises UsageError, NothingDone."""
    if unknown := [name for name in groups if name not in GROUPS]:
        raise UsageError(f"--group {unknown[0]!r} is none of {', '.join(GROUPS)}")
    with _Progress(quiet) as progress:
        done = parent.run(chip, groups, progress.say)
    of = probes.Installation(**done.installation)
    spec = chips.find(of.soc)
    facts = findings.facts_of(done.outcomes)
    times_count = not of.emulated
    forms = findings.forms_of(done.outcomes, facts, spec, times_count)
    found = findings.findings_of(done.outcomes)
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "chip": chip,
        "seconds": round(done.seconds, 1),
        "stopped": done.stopped,
        "versions": versions(),
    }
    cases: list[Mapping[str, Any]] = [outcome.document() for outcome in done.outcomes]
    return probes.ProbeResult(of, forms, facts, [asdict(each) for each in found], cases, about), found


def versions() -> dict[str, str | None]:
    """Of the packages that a result depends on."""
    from ascend_cli.doctor.versions import installed

    return dict(installed())


def keep(result: probes.ProbeResult, output: Path | None, whole: bool) -> Path | None:
    """Where the result was written: the file that was asked for, or the one that the plugin reads; None for neither.

    The plugin's is written only by a whole run on a chip that is not emulated.
    """
    path = output or (result.of.file if whole and not result.about["stopped"] else None)
    if path is not None:
        try:
            result.write(path)
        except OSError as error:
            raise UsageError(
                f"the result cannot be written to {path} ({error.strerror}): give --output FILE"
            ) from error
    return path


# ---------------------------------------------------------------- what people see


class _Progress:
    """Counts cases on standard error, where that is a terminal."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet or not sys.stderr.isatty()
        self._count = 0

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._quiet:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def say(self, outcome: Outcome) -> None:
        self._count += 1
        if not self._quiet:
            line = f"{self._count} cases, {outcome.group}: {outcome.case}"[:78]
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def _show(result: probes.ProbeResult, found: list[Finding], kept: Path | None) -> None:
    from rich.table import Table

    from ascend_cli.output import console

    out = console()
    of = result.of
    known = (f"CANN {of.cann or 'of unknown version'}", f"driver {of.driver or 'of unknown version'}")
    out.print(f"{of.soc}, {', '.join(known)}: {len(result.cases)} forms in {result.about['seconds']} s.", markup=False)
    if of.emulated:
        out.print(EMULATED, style="yellow", markup=False)
    table = Table("group", "right", "of", "not so", title="forms of operators against float64", title_justify="left")
    for group in GROUPS:
        cases = [case for case in result.cases if case["group"] == group]
        if cases:
            right = sum(case["status"] == Status.OK for case in cases)
            rest = [f"{case['case']}: {case['status']}" for case in cases if case["status"] != Status.OK]
            table.add_row(group, str(right), str(len(cases)), "\n".join(rest[:6] + (["..."] if len(rest) > 6 else [])))
    out.print(table)
    for finding in found:
        out.print(f"[yellow]found[/yellow] [bold]{finding.rule}[/bold]: ", end="")
        out.print(finding.what, markup=False, soft_wrap=True)
        out.print(f"        seen:   {finding.cases[0]}: {finding.said}", markup=False, soft_wrap=True)
        does = finding.plugin or "Nothing is known against it: attach the result to an issue."
        out.print(f"        plugin: {does}", markup=False, soft_wrap=True)
    if not found:
        out.print("Nothing was found that differs from the operators' documents.")
    _show_forms(out, result)
    for name, value in sorted(result.facts.items()):
        out.print(f"  {name}: {value}", markup=False, soft_wrap=True)
    if result.about["stopped"]:
        out.print(f"Stopped: {result.about['stopped']}", style="red", markup=False, soft_wrap=True)
    out.print(_where(result, kept), markup=False, soft_wrap=True)


def _show_forms(out: Any, result: probes.ProbeResult) -> None:
    table = chips.find(result.of.soc).forms
    changed = {name: value for name, value in result.forms.items() if _plain(getattr(table, name)) != value}
    for name, value in changed.items():
        out.print(f"  form {name}: {value} here, {_plain(getattr(table, name))} in the chip table", markup=False)
    if not changed:
        out.print("No form differs from the chip table's.")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _where(result: probes.ProbeResult, kept: Path | None) -> str:
    if kept is None and result.of.emulated:
        return f"Not kept, for the chip is emulated: --output FILE writes it, {probes.VARIABLE}=FILE reads it."
    if kept is None:
        why = "a part of the groups" if result.of.file else "a version that is not known here"
        return (
            f"Not kept, for it is of {why}: --output FILE writes it, {probes.VARIABLE}=FILE makes the plugin read it."
        )
    if kept == result.of.file:
        return f"Kept in {kept}: the plugin reads it at its next start, unless {probes.VARIABLE}={probes.NONE} is set."
    return f"Written to {kept}: {probes.VARIABLE}={kept} makes the plugin read it."
