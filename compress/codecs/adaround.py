"""AdaRound: every weight is rounded up or down as the layer's output wants it, not to the nearest
grid point (Nagel, Amjad, van Baalen, Louizos and Blankevoort 2020, "Up or Down? Adaptive Rounding
for Post-Training Quantization", arXiv 2004.10568, sections 3.2 and 3.3).

The paper takes gradient steps on batches of the layer's inputs x. The mean square of x (W - What)'
is tr((W - What) E[x x'] (W - What)'), so the second moments of x are all there is to know of them:
with them every step sees all data, and hundreds of steps do for ten thousands.
"""

import time
from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from compress.codecs.moments import ROWS, VECTOR, checked_moments, squares
from compress.codecs.registry import register
from compress.codecs.report import FitReport, OutputReport
from compress.codecs.uniform import GridConfig, UniformCodec
from compress.config import Positive

ZETA, GAMMA = 1.1, -0.1  # ends of the sigmoid before it is rectified
BETA = (20.0, 2.0)  # of the regularizer, annealed from, to
WARM = 0.2  # part of the iterations that has no regularizer
WEIGHT = 1.0  # of the regularizer, against squared errors in steps, inputs of mean square 1
RATE, MEANS = 0.05, (0.9, 0.999)  # of Adam
PIECE = 1 << 14  # weights: on so few torch works in a single thread, so bytes are always the same


class AdaRoundConfig(GridConfig):
    """The grid, chosen as `uniform` does, and the `iterations` in which the rounding is learned."""

    method: Literal["adaround"] = "adaround"
    bits: Annotated[int, Field(ge=2, le=8)] = 4
    iterations: Positive = 500


@register("adaround")
class AdaRoundCodec(UniformCodec):
    """Stored and finetuned as `uniform` is: packed codes, steps, zero points."""

    Settings = AdaRoundConfig

    @classmethod
    def needed(cls, settings: AdaRoundConfig) -> str | None:
        return "moments"

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        weight: Tensor,
        settings: Any,
        *,
        seed: int = 0,
        sensitivity: Tensor | None = None,
        statistics: Tensor | None = None,
    ) -> tuple[Self, FitReport]:
        """Chooses the grid as `uniform` does, then learns which way each weight is rounded.

        statistics: the moments E[x x'] of what is multiplied with each weight of a row, float
        (groups, n, n), one for each of so many groups of rows. Without them they are taken as
        diagonal, where nearest rounding is best. No row ends with a larger error than by nearest
        rounding. Raises InputError as `uniform`, and for moments that do not fit.
        """
        started = time.perf_counter()
        codec, report = super().fit(weight, settings, seed=seed, sensitivity=sensitivity)
        if statistics is None:
            return codec, OutputReport(**asdict(report))
        rows = weight.detach().float().flatten(1)  # (out, n)
        metrics = checked_moments(statistics, rows)
        codes, scale, zero = codec._on_grid()
        errors = torch.zeros(3, dtype=torch.float64)  # after learning, of nearest rounding, of zero
        learned = []
        for own, near, step, shift, metric in zip(
            *(t.chunk(len(metrics)) for t in (rows, codes, scale, zero)), metrics, strict=True
        ):
            found, added = _round(own, near, step, shift, metric, settings)
            learned.append(found)
            errors += added
        codec.put_codes(torch.cat(learned).flatten().to(torch.int32))
        given = cls.checked_sensitivity(sensitivity, weight)
        report = codec.measured(weight.detach().float(), started, given)
        ratios = (errors[:2] / errors[2].clamp_min(1e-300)).tolist()
        return codec, OutputReport(
            **asdict(report), output_distortion=ratios[0], output_distortion_nearest=ratios[1]
        )

    @classmethod
    def candidates(cls, shape: Any, nominal: Any) -> list[Any]:
        """Only for groups of this method; a budget counts with the error of nearest rounding."""
        if not isinstance(nominal, AdaRoundConfig):
            return []
        return [nominal.model_copy(update={"bits": bits}) for bits in (2, 3, 4, 6, 8)]

    def _on_grid(self) -> tuple[Tensor, Tensor, Tensor]:
        """Codes (out, n), and scale and zero point of each row, as floats."""
        codes = self._indices().view(self.shape[0], -1).float()
        zero = self.scale.new_tensor(self.size >> 1) if self.zero_point is None else self.zero_point
        wide = (self.shape[0],)
        return codes, self.scale.detach().expand(wide), zero.float().expand(wide)


def _round(
    rows: Tensor, near: Tensor, scale: Tensor, zero: Tensor, metric: Tensor, settings: Any
) -> tuple[Tensor, Tensor]:
    """The codes (m, n) of rows that share moments, and three sums of squares of the output: of its
    error with them and with the codes `near`, and of the output itself."""
    m, n = rows.shape
    height = ROWS if rows.device.type == "cpu" else m
    pad = (0, -n % VECTOR, 0, -m % height)
    metric = F.pad(metric, (0, pad[1], 0, pad[1]))
    mean = float(metric.diagonal().double().sum()) / n
    at = rows / scale[:, None] + zero[:, None]  # in steps
    codes, sums = [], torch.zeros(3, dtype=torch.float64)
    parts = (F.pad(t, pad).split(height) for t in (rows, at, near, scale[:, None].expand(m, n)))
    for x, own, nearest, step in zip(*parts, strict=True):
        learned = _learned(own, metric / mean, settings) if mean > 0 else nearest
        after, before = (squares((c - own) * step, metric) for c in (learned, nearest))
        codes.append(torch.where((after < before)[:, None], learned, nearest))
        kept = torch.stack((after.minimum(before), before, squares(x, metric)))
        sums += torch.from_numpy(kept.cpu().numpy().sum(1))
    return torch.cat(codes)[:m, :n], sums


def _learned(at: Tensor, metric: Tensor, settings: Any) -> Tensor:
    """Codes for weights `at` (m, n), in steps: each is low + span * h, span 0 beyond the grid, with
    h in [0, 1] a rectified sigmoid of v, which Adam learns while a regularizer drives h to 0 or 1
    (equations 21 to 25)."""
    top = (1 << settings.bits) - 1
    low = at.floor().clamp(0, top)
    span = (at.floor() + 1).clamp(0, top) - low
    v = ((at - low).clamp(0, 1) - GAMMA) / (ZETA - GAMMA)
    error = torch.empty_like(at)
    state = (v, torch.zeros_like(v), torch.zeros_like(v), at, low, span, error)
    height = max(1, PIECE // at.shape[1]) if at.device.type == "cpu" else len(at)
    pieces = list(zip(*(t.split(height) for t in state), strict=True))
    for v, *_ in pieces:
        v.logit_()
    for i in range(settings.iterations):
        for v, _, _, at, low, span, error in pieces:
            error.copy_(low + span * _rectified(v.sigmoid()) - at)
        slopes = (state[-1] @ metric).split(height)
        done = (i / settings.iterations - WARM) / (1 - WARM)
        for (v, first, second, _, _, span, _), slope in zip(pieces, slopes, strict=True):
            s = v.sigmoid()
            h = _rectified(s)
            g = 2 * span * slope
            if done > 0:
                beta = BETA[0] + (BETA[1] - BETA[0]) * done
                away = 2 * h - 1
                g -= WEIGHT * 2 * beta * away.sign() * away.abs() ** (beta - 1)
            g *= s * (1 - s) * ((h > 0) & (h < 1))
            first.lerp_(g, 1 - MEANS[0])
            second.lerp_(g * g, 1 - MEANS[1])
            rate = RATE * (1 - MEANS[1] ** (i + 1)) ** 0.5 / (1 - MEANS[0] ** (i + 1))
            v -= rate * first / (second.sqrt() + 1e-8)
    return state[4] + state[5] * (state[0] >= 0)


def _rectified(s: Tensor) -> Tensor:
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)
