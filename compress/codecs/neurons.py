"""Whole neurons go: the hidden units of a feed-forward block that tell least (Amjad, Liu and Geiger
2019, "Understanding Neural Networks and Individual Neuron Importance via Information-Ordered
Cumulative Ablation", arXiv 1804.06679), each layer by itself, as the paper advises.

A neuron is a row of the layer that writes it and a column of the layer that reads it. Neither is
stored. What a removed neuron puts out on the mean, times its outgoing weights, is added to the
output of the layer that reads it: bias balancing.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from compress.blocks import row_size
from compress.codecs.base import Codec
from compress.codecs.neuron_curve import expected, neuron_candidates
from compress.codecs.neuron_settings import NeuronsConfig, kept_count, part_shape, writes
from compress.codecs.registry import codec_class, register
from compress.codecs.report import FitReport
from compress.errors import InputError

# Rows of the statistics that compress.calibration.neurons measures.
ROWS = ("mean", "entropy", "information", "selectivity", "norm")


@register("neurons")
class NeuronsCodec(Codec):
    """neurons int16 | int32 (k,): which rows stay of a weight with more rows than columns, else
    which columns. Their weights: a parameter `weights`, or the codec `part`. shift (out,), of a
    layer that reads: what the others put out on the mean."""

    Settings = NeuronsConfig
    settings: NeuronsConfig
    weighs = False
    coded_tensor: ClassVar[str] = "part.codes"
    neurons: Tensor
    shift: Tensor | None

    def __init__(self, shape: Sequence[int], settings: NeuronsConfig):
        super().__init__(shape, settings)
        kept, count = part_shape(shape, settings), kept_count(shape, settings)
        kind = torch.int16 if max(shape[0], row_size(shape)) <= 1 << 15 else torch.int32
        self.register_buffer("neurons", torch.arange(count, dtype=kind))
        self.part: Any = None
        if settings.part is None:
            self.weights = nn.Parameter(torch.zeros(kept))
        else:
            self.part = codec_class(settings.part.method).empty(kept, settings.part)
        shift = torch.zeros(shape[0]) if settings.balance and not writes(shape) else None
        self.register_buffer("shift", shift)

    @classmethod
    def needed(cls, settings: NeuronsConfig) -> str | None:
        return "neurons"

    @classmethod
    def problems(cls, shape: Sequence[int], settings: NeuronsConfig) -> list[str]:
        if (part := settings.part) is None:
            return []
        return codec_class(part.method).problems(part_shape(shape, settings), part)

    @classmethod
    def ties(cls, shapes: Mapping[str, Sequence[int]]) -> list[list[str]]:
        """Feed-forward blocks: each layer with fewer rows than columns, after those that write the
        neurons it reads: the layers with more rows than columns since the last such."""
        found: list[list[str]] = []
        block: list[str] = []
        for name, shape in shapes.items():
            if len(shape) != 2:
                raise InputError(f"{name} is no linear layer: `neurons` prunes feed-forward blocks")
            block.append(name)
            if shape[0] > shape[1]:
                continue
            inputs = {shapes[writer][0] for writer in block[:-1]}
            if inputs != {shape[1]} or shape[0] == shape[1]:
                raise InputError(
                    f"{name} {tuple(shape)}: no layer of the group, right before it, has its "
                    f"{shape[1]} inputs as outputs; a group of `neurons` holds both linear layers "
                    "of each feed-forward block, and nothing else"
                )
            found.append(block)
            block = []
        if block:
            raise InputError(f"{block[0]}: no layer of the group reads its outputs; add it")
        return found

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
        """Keeps the most important neurons of `weight` (out, ...).

        statistics: of the neurons, float (5, neurons), as compress.calibration.neurons measures
        them: the same for all layers of a block, which so keep the same ones. Without them the norm
        of the neuron's own weights decides, and nothing is balanced. Raises InputError for NaN or
        Inf, and for statistics that do not fit.
        """
        started = time.perf_counter()
        weight = cls.checked(weight, settings)
        codec = cls(weight.shape, settings).to(weight.device)
        rows = weight.flatten(1)
        by_neuron = rows if writes(weight.shape) else rows.T
        if statistics is None:
            found = torch.zeros(len(ROWS), len(by_neuron), dtype=torch.float64)
            found[:] = by_neuron.double().norm(dim=1).cpu()
            found[0] = 0
        else:
            found = _checked(statistics, len(by_neuron))
        order = found[ROWS.index(settings.importance)].argsort(descending=True, stable=True)
        count = len(codec.neurons)
        stays, goes = (t.sort().values.to(weight.device) for t in (order[:count], order[count:]))
        codec.neurons.copy_(stays)
        part = by_neuron[stays] if writes(weight.shape) else by_neuron[stays].T
        part = part.reshape(part_shape(weight.shape, settings)).contiguous()
        if settings.part is None:
            codec.weights.copy_(part.half())
        else:
            codec.part = type(codec.part).fit(part, settings.part, seed=seed)[0]
        if codec.shift is not None:
            mean = found[0].to(weight.device)[goes]
            codec.shift.copy_((by_neuron[goes].double() * mean[:, None]).sum(0).half())
        codec.check()
        return codec, codec.measured(weight, started)

    @classmethod
    def candidates(cls, shape: Sequence[int], nominal: Any) -> list[NeuronsConfig]:
        """Only for groups of this method; a block gets one of them for all its layers."""
        return neuron_candidates(shape, nominal) if isinstance(nominal, NeuronsConfig) else []

    @classmethod
    def expected_distortions(
        cls,
        weight: Tensor,
        settings: Sequence[NeuronsConfig],
        *,
        seed: int = 0,
        sensitivity: Tensor | None = None,
        statistics: Tensor | None = None,
    ) -> list[float]:
        return expected(weight, settings, seed)

    def decode(self) -> Tensor:
        part = self.weights if self.part is None else self.part.decode()
        out, n = self.shape[0], row_size(self.shape)
        whole = part.new_zeros(out, n)
        axis = 0 if writes(self.shape) else 1
        return whole.index_copy(axis, self.neurons.long(), part.flatten(1)).view(self.shape)

    def biased(self, bias: Tensor | None) -> Tensor | None:
        if self.shift is None:
            return bias
        return self.shift if bias is None else bias + self.shift

    def rate(self, name: str) -> float:
        """Weights that stay learn as slowly as those of layers that are not compressed."""
        return self.part.rate(name.removeprefix("part.")) if self.part is not None else 0.1

    def stored_layout(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        own = {} if self.part is None else self.part.stored_layout()
        return super().stored_layout() | {f"part.{name}": layout for name, layout in own.items()}

    def expect_coded(self, size: int) -> None:
        if self.part is None:
            super().expect_coded(size)
        else:
            self.part.expect_coded(size)

    def expand(self) -> None:
        if self.part is not None:
            self.part.expand()

    def check(self) -> None:
        super().check()
        found, size = self.neurons.long(), max(self.shape[0], row_size(self.shape))
        if bool((found.diff() <= 0).any()) or not 0 <= int(found[0]) <= int(found[-1]) < size:
            raise InputError(f"neurons are no ascending list of some of the {size}")
        if self.part is not None:
            self.part.check()


def _checked(statistics: Tensor, size: int) -> Tensor:
    found = statistics.detach().double().cpu()
    if found.shape != (len(ROWS), size) or not bool(torch.isfinite(found).all()):
        raise InputError(
            f"statistics of shape {tuple(found.shape)} are none of {size} neurons; measure again"
        )
    return found
