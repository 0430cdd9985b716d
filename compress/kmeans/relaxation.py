"""Over-relaxed updates: steps beyond the mean, which Lloyd approaches slowly."""

from __future__ import annotations

RELAXATION = 1.9  # C += 1.9 (M - C); below 2 the distortion still falls at every step
DECAY = 0.4  # the last 40 % of the iterations bring the factor back to 1


def relaxed_steps(steps: int) -> int:
    """How many of the steps have the full factor."""
    return steps - round(DECAY * steps)


def factor(step: int, steps: int, top: float) -> float:
    """`top`, then linearly down to 1 at the last of `steps`."""
    left = (steps - 1 - step) / max(1.0, DECAY * steps)
    return 1.0 + (top - 1.0) * min(1.0, left)
