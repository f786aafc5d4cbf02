"""The gated delta rule as the plugin computes it, against float64, keys that resemble one another included."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from ascend_cli.doctor.probe.bench import Bench
from ascend_cli.doctor.probe.case import Case, WrongResult
from ascend_facts.chips import ChipSpec

TOKENS, HEADS, KEYS, VALUES = 160, 2, 64, 64
ALIKE = (0.0, 0.9, 0.99)
COARSE = 2e-2  # of outputs and states; docs/silicon.md has what an emulated chip gives


def delta_rule(chip: ChipSpec) -> Iterator[Case]:
    for rounded in (False, True):
        form = "products of halves" if rounded else "plain products"
        for alike in ALIKE:
            yield Case(f"chunks by {form}, keys alike to {alike}", partial(chunks, alike, rounded))
    yield Case("one step of decoding", one_step)
    yield Case("inverse of a triangular matrix by doubling", inverse)
    yield Case("causal convolution of a step", convolution)


def _inputs(bench: Bench, alike: float) -> dict[str, torch.Tensor]:
    common = bench.randn(1, HEADS, KEYS, dtype=torch.float32)
    own = bench.randn(TOKENS, HEADS, KEYS, dtype=torch.float32)
    k = torch.nn.functional.normalize(alike * common + (1 - alike**2) ** 0.5 * own, dim=-1)
    return {
        "q": torch.nn.functional.normalize(bench.randn(TOKENS, HEADS, KEYS, dtype=torch.float32), dim=-1),
        "k": k,
        "v": bench.randn(TOKENS, HEADS, VALUES, dtype=torch.float32),
        "g": -bench.randn(TOKENS, HEADS, dtype=torch.float32).abs() * 1e-2,
        "rate": bench.randn(TOKENS, HEADS, dtype=torch.float32).sigmoid(),
        "state": bench.randn(1, HEADS, VALUES, KEYS, dtype=torch.float32),
    }


def _one_by_one(given: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """In float64, a token at a time."""
    wide = {name: value.double() for name, value in given.items()}
    state, outputs = wide["state"][0], []
    for q, k, v, g, rate in zip(*(wide[name] for name in ("q", "k", "v", "g", "rate")), strict=True):
        state = g.exp()[:, None, None] * state
        correction = rate[:, None] * (v - torch.einsum("hvk,hk->hv", state, k))
        state = state + correction.unsqueeze(-1) * k.unsqueeze(1)
        outputs.append(torch.einsum("hvk,hk->hv", state, q * KEYS**-0.5))
    return torch.stack(outputs), state.unsqueeze(0)


def _root_mean_square(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.cpu().double() - exact).square().mean().sqrt() / exact.square().mean().sqrt())


def chunks(alike: float, rounded: bool, bench: Bench) -> None:
    from ascend_plugin.ops import gated_delta_rule as rule

    given = _inputs(bench, alike)
    plan = rule.plan_chunks([TOKENS], 4, bench.device)
    q, k, v, g, rate, state = (bench.put(value) for value in given.values())
    found = rule.chunked(q, k, v, g, rate, state, plan, rounded)
    errors = [_root_mean_square(*pair) for pair in zip(found, _one_by_one(given), strict=True)]
    kind = "halves" if rounded else "plain"
    bench.facts[f"delta_rule_error_{kind}_{alike}"] = [float(f"{error:.2e}") for error in errors]
    bench.error = max(errors)
    if not max(errors) < COARSE:
        raise WrongResult(f"relative error {max(errors):.1e} where {COARSE:.0e} is allowed")


def one_step(bench: Bench) -> None:
    from ascend_plugin.ops import gated_delta_rule as rule

    given = _inputs(bench, 0.5)
    first = {name: value[:1] for name, value in given.items()}
    found = rule.step(*(bench.put(value) for value in first.values()))
    for part, exact in zip(found, _one_by_one(first), strict=True):
        bench.close(part, exact, 4e-3 if bench.chip.rounds_float32_products else 2e-5)


def inverse(bench: Bench) -> None:
    from ascend_plugin.ops import gated_delta_rule as rule

    below = (bench.randn(2, 2, 64, 64, dtype=torch.float32) * 0.1).tril(-1)
    found = rule.inverse_of_unit_lower(bench.put(below))
    exact = torch.linalg.inv(below.double() + torch.eye(64, dtype=torch.float64))
    bench.close(found, exact, 8e-3 if bench.chip.rounds_float32_products else 2e-5)


def convolution(bench: Bench) -> None:
    from ascend_plugin.ops import gated_delta_rule as rule

    x, weight, state = bench.randn(3, 256), bench.randn(256, 4), bench.randn(3, 3, 256)
    found, after = rule.convolve_step(bench.put(x), bench.put(weight), None, bench.put(state))
    window = torch.cat((state, x.unsqueeze(1)), 1).double()
    bench.close(found, torch.nn.functional.silu((window * weight.double().t()).sum(1)))
    bench.same(after, torch.cat((state, x.unsqueeze(1)), 1)[:, 1:])
