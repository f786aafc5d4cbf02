"""Kernels without a phase-1 check, and those priced as one pass over their tensors, are counted: the numbers only fall.

A kernel without a check answers bad arguments with a failed device instead of 161002. A line of signatures.txt gives
one by the tag `infer`; what ATen cannot judge needs an ACLNN_CHECK.
"""

from __future__ import annotations

import re
from pathlib import Path

from .direct import SOURCE, signatures

MOST_WITHOUT_CHECK = 1  # InplaceZero, which takes anything
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
    inferred = {name for name, operator in signatures().items() if operator.infers}
    kernels = registered("ACLNN_KERNEL")
    assert len(kernels) > 450, "the sources were not read"
    without = sorted(kernels - registered("ACLNN_CHECK") - inferred)
    print(f"{len(without)} of {len(kernels)} kernels without a check: {', '.join(without)}")
    assert len(without) <= MOST_WITHOUT_CHECK, "give the new kernel an ACLNN_CHECK, or its signature the tag infer"


def test_kernels_without_a_cost_of_their_own_become_fewer() -> None:
    kernels = registered("ACLNN_KERNEL")
    without = sorted(kernels - registered("ACLNN_WORK"))
    print(f"{len(without)} of {len(kernels)} kernels are priced as one pass over their tensors")
    assert len(without) <= MOST_WITHOUT_WORK


def test_inferred_kernels_touch_tensors_through_aten_alone() -> None:
    """Phase 1 runs them: one that read or wrote memory itself would do so before it is launched."""
    sources = "\n".join(path.read_text() for path in sorted(Path(SOURCE, "kernels").glob("*.cpp")))
    raw = re.compile(
        r"data_ptr|data_as|\.data\(|\.item|Dense(In|Out)put|float_values|int_values|store_values|fill_zero"
    )
    for name, operator in signatures().items():
        if not operator.infers:
            continue
        body = re.search(rf"^ACLNN_KERNEL\({name}\) (\{{.*\}}$|\{{(?:\n(?!\}}).*)*)", sources, re.MULTILINE)
        assert body is None or not raw.search(body[0]), f"aclnn{name} is tagged infer, but reads memory itself"
