"""Points in the coordinates the kernels work in: centred, and scaled by a power of two.

Centring comes before any quadratic expansion (||c||^2 / 2 - x.c loses every digit when the data
sit far from the origin); the power of two keeps denormals and huge values inside float32 without
changing a single rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from compress.kmeans.inputs import check_weights, value_range
from compress.kmeans.sums import two_to

_STEPS = 1024.0
_MEAN_ROWS = 16384  # rows that decide the offset: it only has to be near the mean


@dataclass(frozen=True)
class Points:
    """A batch of b equal problems; z = (values - offset) * scale is formed inside the kernels.

    values (b, n, d) float32 as given; offset (b, 1, d), scale (b, 1, 1) float64;
    weights None, (b, n, 1) or (b, n, d) float32; low, high (b,): range of the values.
    """

    values: torch.Tensor
    offset: torch.Tensor
    scale: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    weights: torch.Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        b, n, d = self.values.shape
        return b, n, d

    @property
    def device(self) -> torch.device:
        return self.values.device

    @property
    def by_coordinate(self) -> bool:
        """Does every coordinate have a weight of its own?"""
        return self.weights is not None and self.weights.shape[2] > 1

    def element(self, i: int) -> Points:
        """The i-th problem as a batch of one."""
        return self._part(slice(i, i + 1))

    def subset(self, problems: list[int]) -> Points:
        """Some problems of the batch."""
        return self._part(torch.tensor(problems, device=self.device))

    def _part(self, index: slice | torch.Tensor) -> Points:
        weights = None if self.weights is None else self.weights[index]
        return Points(
            self.values[index],
            self.offset[index],
            self.scale[index],
            self.low[index],
            self.high[index],
            weights,
        )

    def take(self, index: torch.Tensor) -> Points:
        """index (b, m) -> the points picked from each problem."""
        batch = torch.arange(index.shape[0], device=index.device)[:, None]
        weights = None if self.weights is None else pick(self.weights, batch, index)
        return replace(self, values=pick(self.values, batch, index), weights=weights)

    def normalized(self, batch: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        """(m,), (m,) -> (m, d) float64, with the float32 rounding that the kernels see."""
        offset, scale = self.offset[:, 0], self.scale[:, 0]
        if self.device.type != "cpu":
            x = self.values[batch, row].double()
            return ((x - offset[batch]) * scale[batch]).float().double()
        i, j = batch.numpy(), row.numpy()
        z = (self.values.numpy()[i, j].astype("float64") - offset.numpy()[i]) * scale.numpy()[i]
        return torch.from_numpy(z.astype("float32").astype("float64"))

    def denormalize(self, centroids: torch.Tensor) -> torch.Tensor:
        """(b, k, d) float64 normalized -> (b, k, d) float32 in the units of the input."""
        return (centroids / self.scale + self.offset).float()

    def unscale(self, distortion: torch.Tensor) -> torch.Tensor:
        """(b,) distortion in normalized units -> (b,) in the units of the input, on the CPU."""
        return distortion.cpu() / self.scale.flatten().cpu() ** 2

    def about(self, codebook: torch.Tensor) -> tuple[Points, torch.Tensor]:
        """The same points centred at the codebook (b, k, d) float32, and the codebook normalized.

        Assignment to a finished codebook must not depend on what it was fitted to, or codes could
        not be recomputed from the codebook alone.
        """
        offset = center(codebook, self.low, self.high)
        points = replace(self, offset=offset, scale=power_of_two(offset, self.low, self.high))
        return points, (codebook.double() - offset) * points.scale


def prepare(x: torch.Tensor, weights: torch.Tensor | None = None) -> Points:
    """x (b, n >= 1, d) float32: check the values, choose offset and scale."""
    low, high = value_range(x)
    offset = center(x[:, :: max(1, x.shape[1] // _MEAN_ROWS)], low, high)
    scale = power_of_two(offset, low, high)
    return Points(x, offset, scale, low, high, check_weights(weights, x))


def pick(x: torch.Tensor, *index: torch.Tensor) -> torch.Tensor:
    """x[index], by numpy on the CPU: torch would start all its threads for a few rows."""
    if x.device.type != "cpu":
        return x[index]
    return torch.from_numpy(x.numpy()[tuple(i.numpy() for i in index)])


def center(x: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """x (b, n, d) -> (b, 1, d) float64: the mean, in steps of a 1024th of the range.

    Coarse steps keep zero blocks and coarse grids exact: what has few bits, less an offset of few
    bits, still fits float32.
    """
    # numpy sums in one thread and in one order: the same offset for any thread count
    mean = torch.from_numpy(x.cpu().numpy().astype("float64").mean(axis=1)).to(x.device)
    step = (two_to(torch.frexp(high - low).exponent) / _STEPS)[:, None]
    mean = torch.round(mean / step) * step
    return torch.where((low < high)[:, None], mean, low[:, None])[:, None]


def power_of_two(offset: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """(b, 1, 1): the power of two that brings every |value - offset| to 1 or below."""
    reach = torch.maximum(high - offset.amin(dim=(1, 2)), offset.amax(dim=(1, 2)) - low)
    exponent = torch.frexp(reach.clamp_min(0.0)).exponent
    return torch.where(reach > 0, two_to(-exponent), 1.0)[:, None, None]
