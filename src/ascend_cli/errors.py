"""The errors that `ascend` reports in one line, and the exit code that each one means.

0  done, and the answer is good
1  done, and the answer is bad: a finding to fix, a model that does not fit, a run that is refused, a slower result
2  nothing was done: the input or the machine does not allow it, and the line says what to do
130  ended by Ctrl-C
"""

from __future__ import annotations

OK = 0
BAD_ANSWER = 1
USAGE = 2


class AscendError(Exception):
    """An error for the person at the terminal: its text is one line that says what to do next."""

    exit_code = BAD_ANSWER


class UsageError(AscendError):
    """The input cannot be used; nothing was done."""

    exit_code = USAGE


class NothingDone(AscendError):
    """What was asked for could not be done, and not for the input's sake: a hub or a server does not play along."""

    exit_code = USAGE
