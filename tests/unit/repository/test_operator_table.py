"""The operator table: its rows are whole, the pages are what it says, and what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ascend_facts import operators, operators_page
from ascend_facts.chips import chips

ROOT = Path(__file__).parents[3]
FAMILIES = {chip.family for chip in chips()}
TABLE = operators.operators()


@pytest.mark.parametrize("language", list(operators_page.PAGES))
def test_the_page_is_what_the_table_says(language: operators_page.Language) -> None:
    page = ROOT / "docs" / operators_page.PAGES[language]
    assert page.read_text(encoding="utf-8") == operators_page.render(language), (
        "run `python -m ascend_facts.operators_page`"
    )


def test_rows_are_whole() -> None:
    for operator in TABLE.values():
        assert operator.forms, operator.name
        assert set(operator.documented) | set(operator.proven) <= FAMILIES, operator.name
        assert bool(operator.limits) == bool(operator.limits_zh), operator.name
        assert (ROOT / operator.test).is_file(), f"{operator.name}: {operator.test}"
        keys = [form.tensors for form in operator.forms]
        assert len(keys) == len(set(keys)), operator.name
        for form in operator.forms:
            assert form.families and set(form.families) <= set(operators.FAMILIES), operator.name
            for layout in form.layouts:
                assert re.fullmatch(r"(\d+v?( \d+v?)*)?", layout), (operator.name, layout)


def test_what_documents_say_is_what_the_emulator_was_told() -> None:
    names = {"310P": "310p", "A2": "910b", "A3": "910_93", "A5": "950"}
    signatures = (ROOT / "emulator/src/aclnn/signatures.txt").read_text()
    known = {
        f"aclnn{name}": {names[word] for word in rest.split() if word in names}
        for name, rest in re.findall(r"^(\w+)\(.*?\) (.*)$", signatures, re.MULTILINE)
    }
    for operator in TABLE.values():
        if operator.name.startswith("aclnn"):
            assert set(operator.documented) == known[operator.name], operator.name


def test_a_form_is_taken_apart() -> None:
    form = "aclnnMatmulWeightNz self=float16[2]v mat2=float16:NZ[2] out=float16[2]"
    assert operators.split(form) == (
        "aclnnMatmulWeightNz",
        "self=float16 mat2=float16:NZ out=float16",
        "2v 2 2",
    )
    assert operators.split("HcclAllReduce data=float16") == ("HcclAllReduce", "data=float16", "")
    with pytest.raises(ValueError, match="is no form"):
        operators.split("aclnnAdd self=float16[2] junk")


def test_a_form_that_is_launched_and_has_no_row_is_named() -> None:
    known = "aclnnRmsNorm x=float16[2] gamma=float16[1] yOut=float16[2] rstdOut=float32[2]"
    assert operators.without_row([known], "310P3") == []
    for new in (known.replace("float16", "bfloat16"), known.replace("[1]", "[7]"), "aclnnNew self=float16[1]"):
        assert operators.without_row([new], "310P3") == [new]


def test_levels() -> None:
    forms = (operators.Form("self=int8", ("310p",), ("1",)),)
    plain = operators.Operator("x", ("910b",), "repository path", "", "", forms)
    assert [plain.level(family, {}) for family in ("310p", "910b")] == [operators.AGAINST, operators.DOCUMENTED]
    assert operators.Operator("x", (), "", "", "", forms).level("310p", {}) == operators.UNKNOWN
    assert plain.level("310p", {"310p": {"x"}}) == operators.SILICON
