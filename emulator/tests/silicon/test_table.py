"""The rules as data: the page is made from them, each has a test and code that asks for it; switches are checked."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ascend_emulator.launcher import emulate

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "emulator" / "src"
USE = "import torch, torch_npu; torch.npu.set_device(0); print((torch.ones(3, dtype={dtype}).npu() + 1).cpu().tolist())"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_rules", SOURCE / "silicon" / "generate_rules.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


RULES, ENFORCE_PENDING = generator().read()


def test_the_page_is_that_of_the_table() -> None:
    page = ROOT / "docs" / "strict.md"
    made = generator().page(RULES, ENFORCE_PENDING)
    assert page.read_text() == made, "run `python emulator/src/silicon/generate_rules.py --page > docs/strict.md`"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_is_asked_for_and_tested(rule: Any) -> None:
    sources = [path for path in SOURCE.rglob("*.cpp") if f"enforces(Rule::{rule.identifier})" in path.read_text()]
    assert sources, f"no source asks enforces(Rule::{rule.identifier})"
    tests = (Path(__file__).parent / "test_rules.py").read_text()
    assert rule.name in tests, f"test_rules.py does not name {rule.name}"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_its_operators_exist(rule: Any) -> None:
    signatures = (SOURCE / "aclnn" / "signatures.txt").read_text()
    for operator in rule.operators:
        if operator not in ("*", "PagedAttention"):
            assert re.search(rf"^{operator}\(", signatures, re.MULTILINE), operator


def ask(dtype: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    with emulate(chip="310P3", count=1, **settings) as machine:
        return machine.run([sys.executable, "-c", USE.format(dtype=dtype)], capture_output=True, text=True)


def test_rules_are_switched_by_name() -> None:
    faulted = ask("torch.int64", rules="int64_add")
    assert faulted.returncode != 0
    assert "rule int64_add of docs/strict.md" in faulted.stderr
    assert ask("torch.int64", rules="all,-int64_add").stdout.strip() == "[2, 2, 2]"
    assert ask("torch.int64", lenient=True).stdout.strip() == "[2, 2, 2]"


def test_an_unknown_rule_is_named() -> None:
    answer = ask("torch.int64", rules="int46_add")
    assert answer.returncode != 0
    assert 'ASCEND_EMULATOR_RULES names "int46_add", which is no rule' in answer.stderr
