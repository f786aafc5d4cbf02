"""What the outcomes of a probe mean: findings for people, forms for the plugin, facts for both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ascend_cli.doctor.probe.case import HEADS_TOGETHER, LONG, MASK_SIZE, Outcome, Status
from ascend_facts.chips import ChipSpec

BAD = (Status.WRONG, Status.REFUSED, Status.FAULT, Status.HANG)
FINE_ERROR = 1e-4  # of the delta rule: below it nothing need be put together from halves
CLEARLY = 1.5  # by how many times a form must be faster to be taken

# What is known to differ between chips: the sentence of a finding, and what the plugin does about it. The names are
# those of the emulator's rules (docs/strict.md), which do the same on purpose.
RULES: dict[str, tuple[str, str]] = {
    "ragged_copy": (
        "A copy within the device that ends inside a block of 32 bytes changes what lies behind it.",
        "It makes no such copy: ids go into place by index, tables come from the host.",
    ),
    "int64_add": (
        "An addition of int64 fails at some lengths.",
        "It adds in int32; positions, slots and lengths are computed on the host.",
    ),
    "nz_float32_result": (
        "A product with a weight in FRACTAL_NZ gives no float32 result.",
        "It takes a scaled float16 result for float32 models.",
    ),
    "moe_gating_limits": (
        "The fused gating takes float16 only, or only some numbers of experts.",
        "It pads the experts, or gates with softmax and topk.",
    ),
    "moe_gating_rows": (
        "The fused gating gives wrong experts beyond 1,024 tokens.",
        "It gates in pieces of that many tokens.",
    ),
    "moe_gating_row_index": (
        "The fused gating's index of rows is not what its document says.",
        "It does not use that output.",
    ),
    "moe_routing_width": (
        "Rows whose width is no multiple of 32 are not sorted by expert.",
        "It refuses such models before their weights are read.",
    ),
    "rotary_limits": (
        "One rotation does not take any number of query and key heads.",
        "It uses the operator up to the largest number that was right, and another form beyond.",
    ),
    "rotary_views": (
        "Rotation of columns of a wider tensor, in place, is wrong.",
        "It copies query and key before it rotates them.",
    ),
    "device_random": (
        "Random numbers of the device fail or hang.",
        "Noise comes from the host.",
    ),
    "row_index_copy": (
        "index_copy_ of whole rows fails.",
        "It assigns rows by index.",
    ),
    "wide_scatter": (
        "A scatter over many columns is not done by the AI cores.",
        "Sampling finds a cut-off in a sorted copy and scatters nothing.",
    ),
    "int32_sum": (
        "Sums in int32 are not done by the AI cores.",
        "It sums in float32.",
    ),
    "weight_quant_layout": (
        "Products with int8 weights lay the weight out anew in every call.",
        "Nothing: four-bit checkpoints are slower here than those of sixteen bits.",
    ),
    "empty_context": (
        "Attention does not write the row of a sequence without keys.",
        "Rows of padding have a length and read a block that exists.",
    ),
    "norm_of_infinity": (
        "RMSNorm makes a whole row NaN where one element is infinite.",
        "Nothing it feeds a norm is infinite: masks are finite, unwritten rows are never read.",
    ),
    "saturation": (
        "Arithmetic that overflows gives the largest finite number.",
        "Scores are hidden by finite numbers, or by infinities that only meet an exponential.",
    ),
    "attention_workspace": (
        "FusedInferAttentionScore writes scratch memory, in replays of a graph too.",
        "It asks for the largest once and keeps it as long as graphs live.",
    ),
    "nz_row_order": (
        "Equal rows of a product differ in rounding.",
        "Nothing: answers may differ by ties between positions in a batch.",
    ),
}


@dataclass(frozen=True)
class Finding:
    """Something that this chip does otherwise than the operators' documents say, or that it cannot do."""

    rule: str  # of RULES, or "other"
    what: str
    plugin: str  # what it does about it; empty: nothing is known
    cases: tuple[str, ...]
    said: str  # of the first case


def findings_of(outcomes: Iterable[Outcome]) -> list[Finding]:
    """One for each rule that failed, and one for each failing case that belongs to none."""
    by_rule: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.status not in BAD or (outcome.may_be_refused and outcome.status is Status.REFUSED):
            continue
        by_rule.setdefault(outcome.rule or f"other: {outcome.case}", []).append(outcome)
    found = []
    for rule, failed in by_rule.items():
        what, plugin = RULES.get(rule, (f"{failed[0].case} is {failed[0].status}.", ""))
        name = rule if rule in RULES else "other"
        said = f"{failed[0].status}: {failed[0].message}"
        found.append(Finding(name, what, plugin, tuple(outcome.case for outcome in failed), said))
    return found


def facts_of(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """What was measured, by name; lists of rows are put together."""
    facts: dict[str, Any] = {}
    for outcome in outcomes:
        for name, value in outcome.facts.items():
            if name == "times_its_neighbor":
                facts[f"{outcome.rule}_times_its_neighbor"] = value
            elif isinstance(value, list) and value and isinstance(value[0], list):
                facts[name] = [*facts.get(name, []), *value]
            else:
                facts[name] = value
    four = facts.get("events_of_four_collectives")
    if four is not None:
        facts["events_per_collective"] = max(1, -(-four // 4))
    return facts


class Seen:
    """Outcomes by the names of their cases, asked whether they were right."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self._by_name = {outcome.case: outcome for outcome in outcomes}

    def decided(self, *names: str) -> bool | None:
        """True where all ran right, False where one did not, None where one is missing or skipped, or none is named."""
        found = [self._by_name.get(name) for name in names]
        if any(outcome is not None and outcome.status in BAD for outcome in found):
            return False
        if not found or any(outcome is None or outcome.status is Status.SKIPPED for outcome in found):
            return None
        return True

    def starting(self, prefix: str) -> list[str]:
        return [name for name in self._by_name if name.startswith(prefix)]


def forms_of(
    outcomes: Sequence[Outcome], facts: Mapping[str, Any], chip: ChipSpec, times_count: bool
) -> dict[str, Any]:
    """Fields of chips.Forms that the outcomes decide; what they leave open stays as the chip table has it."""
    seen = Seen(outcomes)
    gating = "npu_moe_gating_top_k_softmax, "
    forms: dict[str, Any] = {
        "device_random": seen.decided("normal_", "uniform_", "exponential_"),
        "int64_sums": seen.decided(*seen.starting("add int64, ")),
        "fp32_out_nz": seen.decided("mm with a float32 result, FRACTAL_NZ") if chip.weight_format == "nz" else None,
        "row_index_copy": seen.decided("index_copy_ of rows, int32", "index_copy_ of rows, float16"),
        "gating_float32": seen.decided(f"{gating}16 experts, float32"),
        "gating_rows": _no_limit(seen.decided(f"{gating}1025 tokens", f"{gating}2048 tokens"), 1024),
        "gating_experts": _no_limit(seen.decided(f"{gating}272 experts, float16"), 256),
        "gating_expert_multiple": _choice(seen.decided(f"{gating}24 experts, float16"), 1, 16),
        "routing_width_multiple": _choice(seen.decided("npu_moe_init_routing_v2, 48 wide"), 1, 32),
        "has_expert_parallel": seen.decided("npu_grouped_matmul, rows of no expert"),
        "rotary_on_views": seen.decided("npu_apply_rotary_pos_emb on columns of a projection"),
        "rotary_modes": _choice(
            seen.decided("npu_apply_rotary_pos_emb, interleaved"), ["half", "interleave"], ["half"]
        ),
        "rotary_heads": _heads(seen, chip),
        "token_scaled_products": seen.decided(*seen.starting("npu_quant_matmul, a scale for each token")),
        "compressed_mask_keys": _mask_keys(seen) if chip.attention == "paged_nz" else None,
        "compensated_products": _compensated(facts),
        "events_per_collective": facts.get("events_per_collective"),
        "batched_row_products": _on_cube(facts) if times_count else None,
    }
    return {name: value for name, value in forms.items() if value is not None}


def _choice(decided: bool | None, right: Any, wrong: Any) -> Any:
    return None if decided is None else (right if decided else wrong)


def _no_limit(decided: bool | None, limit: int) -> int | None:
    """0, which is any number, or the limit."""
    value: int | None = _choice(decided, 0, limit)
    return value


def _heads(seen: Seen, chip: ChipSpec) -> int | None:
    """The most heads that were right with every smaller number tried; the table's where even the first was not."""
    most = None
    for heads in HEADS_TOGETHER:
        decided = seen.decided(f"npu_apply_rotary_pos_emb, {heads} heads together")
        if not decided:
            return most if decided is False else None
        most = heads
    return most


def _mask_keys(seen: Seen) -> int | None:
    """How many keys the fixed mask serves: 0, any number, if all prefixes were right."""
    tried = [seen.decided(f"_npu_paged_attention_splitfuse_v2, {past} keys before") for past in (MASK_SIZE + 1, LONG)]
    return None if None in tried else (0 if all(tried) else MASK_SIZE)


def _compensated(facts: Mapping[str, Any]) -> bool | None:
    """Whether the delta rule's sums need halves: where plain products are coarser than float32's."""
    errors = [value for name, value in facts.items() if name.startswith("delta_rule_error_plain")]
    return max(max(error) for error in errors) > FINE_ERROR if errors else None


def _on_cube(facts: Mapping[str, Any]) -> bool | None:
    times = facts.get("row_products_us")
    if not times or not times["cube"] or not times["vector"]:
        return None
    if times["cube"] * CLEARLY < times["vector"]:
        return True
    return False if times["vector"] * CLEARLY < times["cube"] else None
