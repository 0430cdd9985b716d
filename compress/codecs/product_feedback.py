"""Codes that make good what the codes before them got wrong.

A layer's output needs w - c to be small not in itself but times the inputs x: e H e' for the error
e of a row and H = E[x x']. With H = R R', R upper triangular, that is |e R|^2, of which the part of
a block J hangs on the errors of the blocks up to it. So each block takes the centroid c nearest to
w_J + (sum over i before J of e_i R_iJ) R_JJ^-1 in the metric R_JJ: GPTQ (Frantar et al. 2023, arXiv
2210.17323) in the form of LDLQ (Chee et al. 2023, arXiv 2307.13304, section 3), for vectors of
weights (GPTVQ, van Baalen et al. 2024, arXiv 2402.15319), and with codes that cost what they take
in the file. The centroids follow: the least squares for these codes, of the output's error.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.codecs.gather import Bags, make_bags
from compress.codecs.moments import PANEL, damped, squares, times, upper_factor
from compress.codecs.product_price import Clustered, sample_step, within
from compress.kmeans.entropy_constrained import code_masses
from compress.kmeans.nearest import nearest

STEPS = 12  # of conjugate gradients, for the centroids
FIRST_PRICE = 0.3  # of a bit, in mean errors of a block
ROUNDS = 2
HEIGHT = 4096  # rows that are looked at together


@dataclass(frozen=True)
class Rows:
    """Weights (m, n) whose inputs have the moments (n, n), cut into blocks of d; scale (m,) or
    None: what a centroid is multiplied with in each row; mass (m,) or None: what a row counts."""

    weights: Tensor
    moments: Tensor
    d: int
    scale: Tensor | None
    mass: Tensor | None = None

    @property
    def step(self) -> int:
        """One of so many rows says about what the price is; 1 for all but large weights."""
        return sample_step(self.weights.numel())

    def some(self, which: slice) -> "Rows":
        """Of all rows those."""
        scale, mass = (t if t is None else t[which] for t in (self.scale, self.mass))
        return replace(self, weights=self.weights[which], scale=scale, mass=mass)

    def decoded(self, codebook: Tensor, codes: Tensor) -> Tensor:
        """(m, n) for codebook (k, d) and codes (m, n / d)."""
        found = codebook[codes.long()].view_as(self.weights)
        return found if self.scale is None else found * self.scale[:, None]

    def error(self, codebook: Tensor, codes: Tensor) -> float:
        """The sum over the rows of e H e', times what they count."""
        return self.total(self.weights - self.decoded(codebook, codes))

    def total(self, errors: Tensor) -> float:
        """The same for errors (m, n)."""
        found = squares(errors, self.moments)
        return float((found if self.mass is None else found * self.mass).sum())


@dataclass(frozen=True)
class Fed:
    """Codebook (k, d), as it is stored, codes (m, n / d), and the sum of e H e' with them."""

    codebook: Tensor
    codes: Tensor
    error: float


def with_feedback(
    rows: Rows, codebook: Tensor, codes: Tensor, most_bytes: int | None
) -> tuple[Fed, Fed]:
    """The codebook and codes that are given, and some with a smaller e H e', where there are such;
    entropy-coded those take `most_bytes` at most, if that is given."""
    factor = upper_factor(damped(rows.moments)).float()
    usage = code_masses(codes.flatten(), len(codebook))
    best = given = Fed(codebook, codes, rows.error(codebook, codes))
    for _ in range(ROUNDS):  # the second gains a hundredth or two
        found = _within(rows, factor, codebook, usage, best.error, most_bytes)
        if found is None:
            break
        codebook = _refitted(rows, codebook, found).half().float()
        error = rows.error(codebook, found)
        if error >= best.error:
            break
        best = Fed(codebook, found, error)
        usage = code_masses(found.flatten(), len(codebook))
    return given, best


def _within(
    rows: Rows,
    factor: Tensor,
    codebook: Tensor,
    usage: Tensor,
    error: float,
    most: int | None,
) -> Tensor | None:
    """Codes of at most `most` bytes; None where none were found."""
    used = usage.nonzero()[:, 0]
    bits = (usage.sum() / usage[used]).log2().to(codebook)

    def at(price: float, step: int) -> Clustered:
        part = rows if step == 1 else rows.some(slice(None, None, step))
        return Clustered(codebook, used[_pass(part, factor, codebook[used], price * bits)])

    if most is None:
        return at(0.0, 1).codes
    price = FIRST_PRICE * max(error, 1e-30) / usage.sum().item()
    found = within(at, len(codebook), most, price, rows.step)
    return None if found is None else found.codes


def _pass(rows: Rows, factor: Tensor, centroids: Tensor, cost: Tensor) -> Tensor:
    """The codes (m, n / d); cost (k,): of each centroid. So many rows at a time that they stay in
    the cache."""
    parts = (rows.some(slice(i, i + HEIGHT)) for i in range(0, len(rows.weights), HEIGHT))
    return torch.cat([_codes(part, factor, centroids, cost) for part in parts])


def _codes(rows: Rows, factor: Tensor, centroids: Tensor, cost: Tensor) -> Tensor:
    """The same for all rows at once, in the order of the columns."""
    m, n = rows.weights.shape
    d, w = rows.d, rows.weights
    lack = torch.zeros_like(w)  # e R of the columns before, so far as they are done
    error = torch.empty_like(w)
    codes = torch.empty(m, n // d, dtype=torch.long, device=w.device)
    scale = 1.0 if rows.scale is None else rows.scale[:, None]
    counts = [t for t in (rows.scale, rows.scale, rows.mass) if t is not None]  # of an error
    weight = torch.stack(counts).prod(0) if counts else torch.ones_like(w[:, 0])
    share = 0.5 / weight.clamp_min(1e-30)[:, None]  # of a cost: half a distance times the weight
    panel = max(d, PANEL // d * d)
    for low in range(0, n, panel):
        high = min(n, low + panel)
        for j in range(low, high, d):
            block = slice(j, j + d)
            metric = factor[block, block]  # (d, d)
            seen = (_few(w[:, block], metric) + lack[:, block]) / scale  # (m, d)
            near = _few(centroids, metric)  # (k, d)
            # |seen - near|^2 / 2 + share cost, less |seen|^2 / 2
            features = torch.cat([seen, share], 1)
            terms = torch.cat([near, -cost[:, None]], 1)
            best = nearest(features, terms, near.square().sum(1) / 2)
            codes[:, j // d] = best
            error[:, block] = w[:, block] - centroids[best] * scale
            for t in range(j, j + d):
                lack[:, j + d : high].addcmul_(error[:, t, None], factor[t, j + d : high])
        lack[:, high:] += error[:, low:high] @ factor[low:high, high:]
    return codes


def _few(x: Tensor, matrix: Tensor) -> Tensor:
    """x (m, d) @ matrix (d, d), added up in one order."""
    found = x[:, :1] * matrix[0]
    for t in range(1, len(matrix)):
        found.addcmul_(x[:, t, None], matrix[t])
    return found


def _refitted(rows: Rows, codebook: Tensor, codes: Tensor) -> Tensor:
    """Centroids (k, d) of least e H e' for the codes, by conjugate gradients from `codebook`."""
    order, starts = make_bags(codes.flatten(), len(codebook))
    bags = Bags(order, starts)

    def gathered(rows_h: Tensor) -> Tensor:
        """(m, n) -> (k, d): the sum over the blocks of each centroid."""
        for factor in (rows.scale, rows.mass):
            rows_h = rows_h if factor is None else rows_h * factor[:, None]
        blocks = rows_h.reshape(-1, rows.d)
        return F.embedding_bag(bags.order, blocks, bags.starts, mode="sum")

    def normal(x: Tensor) -> Tensor:
        return gathered(times(rows.decoded(x, codes), rows.moments))

    x = codebook.clone()
    residual = gathered(times(rows.weights, rows.moments)) - normal(x)
    step, size = residual.clone(), residual.double().square().sum()
    for _ in range(STEPS):
        image = normal(step)
        curvature = (step.double() * image).sum()
        if float(size) <= 0 or float(curvature) <= 0:
            break
        length = (size / curvature).float()
        x, residual = x + length * step, residual - length * image
        size, before = residual.double().square().sum(), size
        step = residual + (size / before).float() * step
    return x
