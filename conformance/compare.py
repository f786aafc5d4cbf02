"""When is an answer right? Errors against fp32, judged by the rounding noise of the same model in the same precision.

The scale is measured, not chosen: transformers runs the same sequences in the engine's dtype, and its distance from
fp32 is the noise of an honest implementation. The engine rounds in other places, so its noise is another draw:
independence alone gives a factor of sqrt(2) between two draws, and up to four times as many roundings (unfused
operators), which add as a random walk, gives 2 more. LIMIT is their product, rounded up. A fault moves logits by
units; see `faults.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LIMIT = 3.0
TYPICAL, WIDE = 0.5, 0.9  # quantiles of the error over positions

# A mixture of experts may pick another expert where two are nearly tied: rare, large and legitimate. Rounding flips
# about one position in a hundred (measured, fp16, these sizes), and keys, values and states carry a flip on for some
# ten positions more: the worst position says nothing, nor a quantile of a few sequences, but the share in all does.
FLIP_SIZE = 10.0  # times the typical noise: then a position counts as flipped
FLIP_SHARE = 0.05


@dataclass(frozen=True)
class Verdict:
    """Errors as multiples of the noise."""

    typical: float
    wide: float
    worst: float
    flipped: float  # share of positions
    positions: int
    good: bool

    def __str__(self) -> str:
        return (
            f"{self.positions} positions: error over noise {self.typical:.2f} (median), {self.wide:.2f} (90%), "
            f"{self.worst:.2f} (worst), limit {LIMIT:.0f}"
        )


def errors(observed: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Root mean square difference of each row ([rows, width] -> [rows])."""
    if observed.shape != expected.shape:
        raise ValueError(f"The engine answered with shape {observed.shape} where the reference has {expected.shape}.")
    squares = (observed.astype(np.float64) - expected.astype(np.float64)) ** 2
    root: np.ndarray = np.sqrt(np.mean(squares, axis=-1))
    return root


def judge(error: np.ndarray, noise: np.ndarray, whole: tuple[np.ndarray, np.ndarray], routed: bool) -> Verdict:
    """Verdict on the errors of some positions, given the noise of the same positions.

    whole: errors and noise of all positions of the model. A maximum of few is no scale, nor a flip of few a share.
    routed: a mixture of experts.
    """
    typical, wide = (_quotient(np.quantile(error, q), np.quantile(noise, q)) for q in (TYPICAL, WIDE))
    worst = _quotient(error.max(), whole[1].max())
    spread = (error, noise)
    if routed:
        spread, wide = whole, _quotient(*(np.quantile(values, WIDE) for values in whole))
    scale = FLIP_SIZE * max(np.quantile(spread[1], TYPICAL), 1e-9)
    flipped, of_reference = (float(np.mean(values > scale)) for values in spread)
    # Where the reference's own rounding flips more, as with many experts alike, so may an honest implementation.
    allowed = max(FLIP_SHARE, 2.0 * of_reference)
    good = typical <= LIMIT and wide <= LIMIT and (flipped <= allowed if routed else worst <= LIMIT)
    return Verdict(
        float(typical), float(wide), float(worst), flipped, len(error), bool(good and np.isfinite(error).all())
    )


def _quotient(error: float, noise: float) -> float:
    return float(error / noise) if noise > 0 else (0.0 if error == 0 else float("inf"))


def concatenate(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0)
