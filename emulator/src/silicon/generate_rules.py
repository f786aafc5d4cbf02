"""Derive from rules.toml what C++ reads, and the page for people.

Usage: generate_rules.py OUTPUT.inc, or generate_rules.py --page to print docs/strict.md.
"""

import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).with_name("rules.toml")
PRODUCTS = {"310P": "kAtlasInference", "A2": "kA2", "A3": "kA3", "A5": "kA5"}
KINDS = {
    "refuse": "phase 1 answers an error",
    "fault": "the launch fails on the device",
    "corrupt": "wrong values, no error",
    "saturate": "the largest finite number instead of an infinity, 0 instead of NaN",
    "leave_unwritten": "part of the output keeps what its memory held",
    "ai_cpu": "runs on the chip's AI CPU: slow, in the model of time",
    "cost": "takes more time than its operands say, in the model of time",
    "poison": "what the caller may not rely on gets values that show",
    "permute": "another order of summation",
}
EVIDENCE = {
    "code": "source of op_api, op_host or the kernel says it",
    "document": "the vendor's document says it",
    "field": "software that runs on the chip works around it, or an operator of a card reports it",
    "inferred": "follows from one of these; nobody is known to have seen it",
}


@dataclass(frozen=True)
class Rule:
    name: str
    chips: tuple[str, ...]
    kind: str
    operators: tuple[str, ...]
    what: str
    source: str
    evidence: str
    pending: bool

    def __post_init__(self) -> None:
        for chip in self.chips:
            _one_of(f"{self.name}: chips", chip, PRODUCTS)
        _one_of(f"{self.name}: kind", self.kind, KINDS)
        _one_of(f"{self.name}: evidence", self.evidence, EVIDENCE)

    @property
    def identifier(self) -> str:
        return "k" + "".join(word.capitalize() for word in self.name.split("_"))


def _one_of(what: str, value: str, accepted: dict[str, str]) -> None:
    if value not in accepted:
        raise ValueError(f"{what} is {value!r}: choose one of {', '.join(accepted)}")


def read(path: Path = TABLE) -> tuple[list[Rule], bool]:
    """The rules, and whether those that wait for the plugin are enforced. Raises ValueError for a wrong entry."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    rules = []
    for entry in table["rule"]:
        lists = {name: tuple(entry[name]) for name in ("chips", "operators")}
        rules.append(Rule(**{**entry, **lists}))
    names = [rule.name for rule in rules]
    if len(set(names)) != len(names):
        raise ValueError("a rule's name occurs twice")
    return rules, table["enforce_pending"]


def include(rules: list[Rule], enforce_pending: bool) -> str:
    lines = []
    for rule in rules:
        products = " | ".join(PRODUCTS[chip] for chip in rule.chips)
        enforced = "true" if enforce_pending or not rule.pending else "false"
        lines.append(f'SILICON_RULE({rule.identifier}, "{rule.name}", {products}, {enforced})')
    return "// Derived from rules.toml by generate_rules.py.\n" + "\n".join(lines) + "\n"


HEAD = """# Strict mode: what the silicon does beyond the documents

<!-- Made by `python emulator/src/silicon/generate_rules.py --page`; a test compares. Edit rules.toml instead. -->

An emulated chip that is kinder than a card lets code pass that fails on the card. The rules below are what source code,
documents and reports say the silicon does and CANN's operator documents do not say, or say elsewhere. Each is data
(`emulator/src/silicon/rules.toml`), holds on the chips that it names, and has a test that shows it
(`emulator/tests/silicon`).

| to | do |
| --- | --- |
| switch all off | `ASCEND_EMULATOR_LENIENT=1`, or `python -m ascend_emulator --lenient -- COMMAND` |
| switch one on or off | `ASCEND_EMULATOR_RULES=ragged_copy,-int64_add`, or `--rules`; left to right; `all`, `none` |
| see where a silent one strikes | a line on stderr, once a rule and process |

A refusal or a fault names its rule in its message.
"""


def page(rules: list[Rule], enforce_pending: bool) -> str:
    default = "on" if enforce_pending else "when asked for"
    lines = [HEAD]
    if not enforce_pending and any(rule.pending for rule in rules):
        lines.append(
            "Rules that are marked *when asked for* wait until the plugin no longer launches what they forbid "
            "(`enforce_pending` in rules.toml); `ASCEND_EMULATOR_RULES=all` enforces them today.\n"
        )
    lines.append("| rule | chips | what it does | evidence | enforced |\n| --- | --- | --- | --- | --- |")
    for rule in rules:
        on = default if rule.pending else "on"
        cells = (f"[{rule.name}](#{rule.name})", ", ".join(rule.chips), rule.kind, rule.evidence, on)
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("\nKinds: " + "; ".join(f"**{kind}**: {text}" for kind, text in KINDS.items()) + ".")
    lines.append("\nEvidence: " + "; ".join(f"**{level}**: {text}" for level, text in EVIDENCE.items()) + ".\n")
    for rule in rules:
        operators = "every arithmetic operator" if rule.operators == ("*",) else ", ".join(rule.operators)
        lines.append(f"## {rule.name}\n\n{rule.what}\n\nOperators: {operators}.\n\nSource: {rule.source}.\n")
    return "\n".join(lines)


def main() -> None:
    try:
        rules, enforce_pending = read()
    except (ValueError, TypeError, KeyError) as error:
        sys.exit(f"{TABLE}: {error}")
    if sys.argv[1:] == ["--page"]:
        print(page(rules, enforce_pending), end="")
    else:
        Path(sys.argv[1]).write_text(include(rules, enforce_pending), encoding="utf-8")


if __name__ == "__main__":
    main()
