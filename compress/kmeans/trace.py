"""What happens to each problem of a batch while it is fitted."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass
class Trace:
    """distortion: in the units of the input, at each assignment; empty: clusters met empty there;
    rounds: of resolution, over the whole fit; failed: a baseline's resolution gave up."""

    distortion: list[float] = field(default_factory=list)
    empty: list[int] = field(default_factory=list)
    rounds: int = 0
    failed: bool = False

    def still(self, tolerance: float) -> bool:
        """Did the last step change the distortion by no more than this part of it?"""
        if len(self.distortion) < 2:
            return False
        before, now = self.distortion[-2:]
        return abs(before - now) <= tolerance * before


def record(
    traces: list[Trace], active: torch.Tensor, empty: torch.Tensor, distortion: torch.Tensor
) -> None:
    """Note an assignment, (b,) each, for the problems that are active."""
    rows = zip(traces, active.tolist(), empty.tolist(), distortion.tolist(), strict=True)
    for trace, on, count, value in rows:
        if on:
            trace.distortion.append(value)
            trace.empty.append(count)


def count_rounds(traces: list[Trace], rounds: torch.Tensor, failed: torch.Tensor) -> None:
    """Note a resolution, (b,) each."""
    for trace, more, gave_up in zip(traces, rounds.tolist(), failed.tolist(), strict=True):
        trace.rounds += more
        trace.failed |= gave_up
