"""Sums by group that never depend on the order in which threads finish."""

from __future__ import annotations

import torch


def group_sum(values: torch.Tensor, group: torch.Tensor, groups: int) -> torch.Tensor:
    """(m, c) float64, (m,) int64 -> (groups, c) float64."""
    if values.is_cuda:
        return group_sum_fixed(values, group, groups)
    # one thread, in the order of the rows: the order of the compiled kernel too
    columns = [torch.bincount(group, weights=v, minlength=groups) for v in values.T.contiguous()]
    return torch.stack(columns, dim=1).double()  # bincount of nothing is integer


def group_sum_fixed(values: torch.Tensor, group: torch.Tensor, groups: int) -> torch.Tensor:
    """The same by integer atomics, which unlike float atomics add up equally in any order.

    Each column is scaled by a power of two so that no sum can leave 62 bits; at a million rows
    that keeps 42 bits below the largest value.
    """
    m = values.shape[0]
    total = torch.zeros(groups, values.shape[1], dtype=torch.int64, device=values.device)
    if m == 0:
        return total.double()
    room = 62 - m.bit_length()
    exponent = torch.frexp(values.abs().amax(dim=0)).exponent  # (c,) |values| < 2^exponent
    # two factors, because one alone may leave the range of float64
    values = values * two_to(-exponent) * 2.0**room
    total.index_add_(0, group, torch.round(values).long())
    return total.double() * 2.0**-room * two_to(exponent)


def two_to(exponent: torch.Tensor) -> torch.Tensor:
    """2^exponent in float64, exactly (torch.exp2 may be off by a rounding); |exponent| < 1022."""
    return ((exponent.long().clamp(-1022, 1022) + 1023) << 52).view(torch.float64)


def cumulative(values: torch.Tensor) -> torch.Tensor:
    """(b, n) float64, non-negative -> (b, n) running share of the total, 1.0 at the end.

    Added as integers, for the same reason. A row without mass rises evenly.
    """
    n = values.shape[1]
    top = values.amax(dim=1, keepdim=True)
    values = torch.where(top > 0, values / top.clamp_min(1e-300), 1.0)
    total = (values * 2.0 ** (62 - n.bit_length())).long().cumsum(dim=1)
    return total.double() / total[:, -1:].double()
