"""About the distortion of product quantization, from short fits of some of the blocks."""

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from math import exp, log
from typing import Any

import torch
from torch import Tensor

from compress.codecs.product_draw import draw
from compress.codecs.product_rate import ROUNDS
from compress.kmeans import assign, fit
from compress.kmeans.entropy_constrained import (
    assign_cheapest,
    code_masses,
    constrain,
    entropy,
)

ITERATIONS = 2
POINTS = 8  # blocks of the sample for each centroid,
MIN_POINTS = 8192  # at least so many,
HELD_OUT = 4096  # and so many that the codebook has not seen
LADDER = tuple(0.05 * 1.8**i for i in range(9))  # prices of a bit, in mean errors of a block


@torch.no_grad()
def sampled_distortions(
    weight: Tensor, settings: Sequence[Any], seed: int, sensitivity: Tensor | None
) -> list[float]:
    """Relative distortion of a whole fit of `weight` (out, ...) with each of the settings; with a
    sensitivity, that broadcasts to it, weighted. Settings that differ in `code_bits` share a fit.
    """
    samples: dict[str, _Sample] = {}
    found = []
    for one in settings:
        alike = one.model_copy(update={"code_bits": None})
        key = alike.model_dump_json()
        if key not in samples:
            samples[key] = _Sample(weight, alike, seed, sensitivity)
        found.append(samples[key].distortion(one.code_bits))
    return found


class _Sample:
    """One codebook, fitted to a sample.

    It is too good on the sample and too bad on all else. With r = sample / all the fit of all
    blocks lies near held_out - (1 + 2r)/3 (held_out - sample): the thirds are measured (normal and
    trained weights, 2 to 16 weights a block, 16 to 4096 centroids; within about 5 %), r = 1 is the
    fit itself. Few iterations leave it 1 to 3 % too high.
    """

    def __init__(self, weight: Tensor, settings: Any, seed: int, sensitivity: Tensor | None):
        wanted = max(MIN_POINTS, POINTS * settings.codebook_size)
        self.drawn = draw(weight, settings, wanted + HELD_OUT, seed, sensitivity)
        whole = self.drawn.n <= wanted + HELD_OUT
        self.count = self.drawn.n if whole else wanted  # of the points that are fitted
        self.seen, self.rest = (
            self.drawn.part(part) for part in (slice(self.count), slice(self.count, None))
        )
        own = self.seen.fitted
        result = fit(
            self.seen.points, settings.codebook_size, seeding=settings.seeding,
            empties=settings.empties, seed=seed, iterations=min(ITERATIONS, settings.iterations),
            relaxation=settings.relaxation, consolidation="off",
            weights=None if own is None else own * self.seen.masses[:, None].float(),
        )  # fmt: skip
        self.codebook, self.codes = result.codebook, result.codes.long()

    def distortion(self, code_bits: float | None) -> float:
        """Of a fit whose codes take so many bits on disk; None: as many as they take."""
        if code_bits is None:
            return self._plain
        tables = 16 * len(self.codebook) / self.drawn.n  # bits a code
        return between(self._ladder, code_bits - tables)

    @cached_property
    def _plain(self) -> float:
        codes = assign(self.rest.points, self.codebook, self.rest.fitted)
        return self._estimate(self.codebook, torch.cat([self.codes, codes]))

    @cached_property
    def _ladder(self) -> list[tuple[float, float]]:
        """(bits a code, distortion) at dearer and dearer bits, the plain fit first."""
        seen, rest, k = self.seen, self.rest, len(self.codebook)
        steps = [(self._bits(code_masses(self.codes, k, seen.masses)), self._plain)]
        error = seen.points - self.codebook[self.codes]
        if seen.fitted is not None:
            error = error * seen.fitted.sqrt()
        unit = float((error.double().square().sum(1) * seen.masses).sum() / seen.masses.sum())
        for price in (unit * one for one in LADDER if unit > 0):
            codebook, codes = constrain(
                seen.points, self.codebook, self.codes, price,
                weights=seen.fitted, masses=seen.masses, rounds=ROUNDS,
            )  # fmt: skip
            usage = code_masses(codes, k, seen.masses)
            others = assign_cheapest(rest.points, codebook, usage, price, rest.fitted)
            steps.append((self._bits(usage), self._estimate(codebook, torch.cat([codes, others]))))
        return steps

    def _estimate(self, codebook: Tensor, codes: Tensor) -> float:
        """From the errors of all points with these codes (m,)."""
        error = self.drawn.squares(self.drawn.points - codebook[codes])
        energy = self.drawn.squares(self.drawn.points)
        sample = _ratio(error[: self.count], energy[: self.count])
        if self.count == len(codes):
            return sample
        held_out = _ratio(error[self.count :], energy[self.count :])
        share = self.count / self.drawn.n
        return held_out - (1 + 2 * share) / 3 * max(0.0, held_out - sample)

    def _bits(self, usage: Tensor) -> float:
        """Of a code; a sample's entropy is too low by about (u - 1) / 2m nats (Miller 1955)."""
        return entropy(usage) + (int((usage > 0).sum()) - 1) / (2 * self.count * log(2))


def between(steps: Sequence[tuple[float, float]], bits: float) -> float:
    """The distortion at `bits`, linear in its logarithm between steps of ever fewer bits."""
    falling = [steps[0]]
    for step in steps[1:]:
        if step[0] < falling[-1][0] and step[1] >= falling[-1][1] > 0:
            falling.append(step)
    for (more, better), (less, worse) in pairwise(falling):
        if bits >= less:
            share = max(0.0, more - bits) / (more - less)
            return exp((1 - share) * log(better) + share * log(worse))
    return falling[-1][1] if bits >= falling[-1][0] else 1.0  # fewer than were tried


def _ratio(error: Tensor, energy: Tensor) -> float:
    total = float(energy.sum())
    return float(error.sum()) / total if total else 0.0
