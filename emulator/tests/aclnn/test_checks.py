"""Kernels without a phase-1 check, and those priced as one pass over their tensors, are counted: the numbers only fall.

A kernel without a check answers bad arguments with a failed device instead of 161002. What a line of signatures.txt can
say (sizes, classes of types) is checked from there; anything else needs an ACLNN_CHECK.
"""

from __future__ import annotations

import re
from pathlib import Path

from .direct import SOURCE, signatures

MOST_WITHOUT_CHECK = 0
MOST_WITHOUT_WORK = 407


def registered(macro: str) -> set[str]:
    """Operators that a macro of the kernel files defines; the macros of elementwise.h stand for what they expand to."""
    sources = "\n".join(path.read_text() for path in sorted(Path(SOURCE, "kernels").glob("*.cpp")))
    names = set(re.findall(rf"^{macro}\((\w+)\)", sources, re.MULTILINE))
    header = Path(SOURCE, "kernels", "elementwise.h").read_text()
    bodies = re.findall(r"^#define (\w+)\([^)]*\)((?:.*\\\n)*.*)$", header, re.MULTILINE)
    bodies += re.findall(r"^#define (\w+)\([^)]*\)((?:.*\\\n)*.*)$", sources, re.MULTILINE)
    for name, body in bodies:
        if macro in body:
            names |= set(re.findall(rf"^{name}\((\w+)[,)]", sources, re.MULTILINE))
    return names & set(signatures())


def test_kernels_without_a_check_become_fewer() -> None:
    declared = {name for name, operator in signatures().items() if operator.demands}
    kernels = registered("ACLNN_KERNEL")
    assert len(kernels) > 450, "the sources were not read"
    without = sorted(kernels - registered("ACLNN_CHECK") - declared)
    print(f"{len(without)} of {len(kernels)} kernels without a check: {', '.join(without)}")
    assert len(without) <= MOST_WITHOUT_CHECK, "give the new kernel an ACLNN_CHECK, or its signature what it demands"


def test_kernels_without_a_cost_of_their_own_become_fewer() -> None:
    kernels = registered("ACLNN_KERNEL")
    without = sorted(kernels - registered("ACLNN_WORK"))
    print(f"{len(without)} of {len(kernels)} kernels are priced as one pass over their tensors")
    assert len(without) <= MOST_WITHOUT_WORK
