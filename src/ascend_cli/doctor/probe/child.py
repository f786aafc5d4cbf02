"""The process that tries cases: `python -m ascend_cli.doctor.probe.child ANSWERS_FD`.

It imports torch_npu, opens no device, and forks for every order, so that a group costs no import and what it does to
its process ends with it. Orders are lines of JSON on standard input: {"group": .., "chip": 0, "skip": [names]}, with
"only_list" to be told the cases and no more.
Answers are lines too: {"pid": ..}; {"begins": case} and {"outcome": {..}} of each case; {"code": ..} when the fork has
ended. A fork whose device has failed ends at once: nothing runs in it any more.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from ascend_cli.doctor.probe.case import Case, Outcome

DEVICE_LOST = 3  # exit code of a fork whose device failed


def main() -> None:
    answers = os.fdopen(int(sys.argv[1]), "w", buffering=1)

    def say(**line: Any) -> None:
        answers.write(json.dumps(line) + "\n")
        answers.flush()

    import torch
    import torch_npu  # noqa: F401

    from ascend_cli.doctor.probe import catalogue  # noqa: F401  the cases' imports

    say(ready={"torch": torch.__version__})
    for line in iter(sys.stdin.readline, ""):
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.setsid()  # so that it can be killed with what it starts
            _run(order, answers)
        say(pid=pid)
        say(code=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _run(order: dict[str, Any], answers: TextIO) -> None:
    code = 1
    try:
        code = run_group(order, answers)
    except BaseException as error:  # whatever it is, the parent must be told, and this fork must not go on
        answers.write(json.dumps({"failed": f"{type(error).__name__}: {error}"}) + "\n")
    finally:
        with suppress(Exception):
            answers.flush()
        os._exit(code)  # torch_npu's own exit waits for a device that may not answer


def run_group(order: dict[str, Any], answers: TextIO) -> int:
    """Every case of the group that is not to be skipped; the exit code of this process."""
    import torch

    from ascend_cli.doctor.probe import catalogue
    from ascend_cli.doctor.probe.case import Status
    from ascend_facts import probes
    from ascend_plugin import detection

    def say(**line: Any) -> None:
        answers.write(json.dumps(line) + "\n")
        answers.flush()

    chip = catalogue.chip_here()
    here = probes.installation(detection.soc_version() or "")
    say(installation={"soc": here.soc, "cann": here.cann, "driver": here.driver, "emulated": here.emulated})
    cases = [case for case in catalogue.cases_of(order["group"], chip) if case.name not in order["skip"]]
    say(cases=[[case.name, case.rule, case.may_be_refused] for case in cases])
    if order.get("only_list"):
        return 0
    if order["group"] not in catalogue.OWN_DEVICES:
        torch.npu.set_device(order["chip"])
        torch.npu.config.allow_internal_format = True
        torch.npu.set_compile_mode(jit_compile=False)
    for case in cases:
        say(begins=case.name)
        outcome = try_case(case, order["group"], chip, here.emulated)
        say(outcome=outcome.document())
        if outcome.status is Status.FAULT:
            return DEVICE_LOST
    return 0


def try_case(case: Case, group: str, chip: Any, emulated: bool) -> Outcome:
    """How one case went."""
    from ascend_cli.doctor.probe import catalogue
    from ascend_cli.doctor.probe.bench import Bench
    from ascend_cli.doctor.probe.case import NotHere, Outcome, Status, WrongResult

    bench = Bench(chip, emulated)
    outcome = Outcome(case.name, group, Status.OK, rule=case.rule, may_be_refused=case.may_be_refused)
    try:
        case.run(bench)
        if group not in catalogue.OWN_DEVICES:
            bench.finish()
    except WrongResult as error:
        outcome.status, outcome.message = Status.WRONG, str(error)
    except NotHere as reason:
        outcome.status, outcome.message = Status.SKIPPED, str(reason)
    except (RuntimeError, ValueError, NotImplementedError, TypeError) as error:
        outcome.message = one_line(error)
        alive = group in catalogue.OWN_DEVICES or device_answers()
        outcome.status = Status.REFUSED if alive else Status.FAULT
    outcome.error, outcome.canaries = bench.error, bench.canaries
    outcome.time_us, outcome.facts = bench.time_us, bench.facts
    return outcome


def device_answers() -> bool:
    """Whether anything still runs on the device of this process."""
    import torch

    try:
        return bool((torch.arange(8, dtype=torch.float32).npu() + 1).cpu()[7] == 8)
    except RuntimeError:
        return False


def one_line(error: BaseException) -> str:
    """What an error says, less torch_npu's headings: the lines that carry a code or a reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "[ERROR]" not in line and not line.startswith("E") and "PID" not in line]
    return " ".join((telling or lines or [type(error).__name__])[:3])[:300]


if __name__ == "__main__":
    main()
