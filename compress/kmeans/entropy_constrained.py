"""Entropy-constrained vector quantization: codes that take few bits once they are entropy-coded.

The sum of w (x - c)^2 + price * bits(code) falls with every round: a code that n_c of n points use
takes log2(n / n_c) bits, each point takes the code that costs it least, each centroid becomes the
mean of its points (Chou, Lookabaugh, Gray 1989, IEEE Trans. ASSP 37, 31-42). Where points weigh
little, as rare rows of an embedding do, they come to share the codes that are cheap.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compress.kmeans.distance import Sweep, sweep
from compress.kmeans.points import Points, prepare


def constrain(
    points: Tensor,
    codebook: Tensor,
    codes: Tensor,
    price: float,
    *,
    weights: Tensor | None = None,
    masses: Tensor | None = None,
    rounds: int = 2,
) -> tuple[Tensor, Tensor]:
    """Rounds from a codebook (k, d) and the codes (n,) of the points (n, d): (codebook, codes).

    price: of a bit, in units of weighted squared error, >= 0. weights: (n,), (n, 1), (1, d) or
    (n, d) as in `fit`. masses (n,): how many points each stands for, where they are a sample. A
    code that nobody uses stays unused. The same to the byte for any number of threads.
    """
    d, k = points.shape[1], len(codebook)
    data = _wider_points(points, weights)
    codebook, codes = codebook.clone(), codes.long()
    for _ in range(rounds):
        usage = code_masses(codes, k, masses)
        used, found, centroids = _cheapest(data, codebook, usage, price)
        codebook[used] = data.denormalize(found.means(centroids))[0, :, :d]
        codes = used[found.codes[0].long()]
    return codebook, codes


def assign_cheapest(
    points: Tensor, codebook: Tensor, usage: Tensor, price: float, weights: Tensor | None = None
) -> Tensor:
    """The code (n,) int64 of each point that costs it least, where codes are used as `usage` (k,)
    says. Arguments as in `constrain`."""
    if not len(points):
        return torch.empty(0, dtype=torch.int64, device=points.device)
    used, found, _ = _cheapest(_wider_points(points, weights), codebook, usage, price)
    return used[found.codes[0].long()]


def _cheapest(
    data: Points, codebook: Tensor, usage: Tensor, price: float
) -> tuple[Tensor, Sweep, Tensor]:
    """The codes in use (u,), a pass over the points among them, their centroids (1, u, d + 1)."""
    used = usage.nonzero()[:, 0]
    bits = (usage.sum() / usage[used]).log2()
    # One more coordinate, 0 in every point: its distance is what the code costs.
    cost = (price * bits).sqrt()[:, None].to(codebook)
    centroids = torch.cat([codebook[used], cost], 1)[None].double()
    normal = (centroids - data.offset) * data.scale
    return used, sweep(data, normal), normal


def _wider_points(points: Tensor, weights: Tensor | None) -> Points:
    """(n, d) -> (1, n, d + 1), and its weights."""
    return prepare(_wider(points, 0.0)[None], _row_weights(weights, points.shape[1]))


def code_masses(codes: Tensor, k: int, masses: Tensor | None = None) -> Tensor:
    """(k,) float64: the points of each code, each counted by its mass; summed in one order."""
    mass = None if masses is None else masses.double().cpu()
    return torch.bincount(codes.cpu(), weights=mass, minlength=k).double().to(codes.device)


def entropy(usage: Tensor) -> float:
    """Bits a code, of codes used so often (k,)."""
    share = usage[usage > 0] / usage.sum()
    return float(-(share * share.log2()).sum())


def _row_weights(weights: Tensor | None, d: int) -> Tensor | None:
    """(n,), (n, 1), (1, d) or (n, d) -> (1, 1 | n, d + 1): the new coordinate counts once."""
    if weights is None:
        return None
    by_point = weights[:, None] if weights.ndim == 1 else weights
    return _wider(by_point.expand(-1, d), 1.0)[None].float()


def _wider(x: Tensor, value: float) -> Tensor:
    return torch.cat([x, x.new_full((len(x), 1), value)], 1)
