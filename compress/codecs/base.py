"""What every compression method offers."""

import time
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from compress.codecs.forward import ForwardCodec
from compress.codecs.report import Errors, FitReport
from compress.config import CodecConfig
from compress.errors import InputError

SAMPLED_WEIGHTS = 1 << 18


class Codec(ForwardCodec):
    """A weight of `shape` in compressed form. Its tensors are what the checkpoint stores.

    Float parameters are trained in memory's precision and stored as fp16; `round_stored` rounds
    them to what is stored.
    """

    method: ClassVar[str]
    Settings: ClassVar[type[CodecConfig]]
    weighs: ClassVar[bool] = True  # whether `fit` weights errors by a sensitivity
    coded_tensor: ClassVar[str] = "codes"  # what `coded_codes` and `expect_coded` are about

    def __init__(self, shape: Sequence[int], settings: CodecConfig):
        super().__init__()
        self.shape: tuple[int, ...] = tuple(shape)
        self.settings = settings

    @classmethod
    def needed(cls, settings: Any) -> str | None:
        """What `fit` takes as `statistics` of a layer with these settings: a kind that
        compress.calibration.measure knows."""
        return None

    def biased(self, bias: Tensor | None) -> Tensor | None:
        """The bias of the layer, with what the method adds to its output."""
        return bias

    @classmethod
    def fit(
        cls, weight: Tensor, settings: Any, *, seed: int = 0, sensitivity: Tensor | None = None
    ) -> tuple[Self, FitReport]:
        """Compresses `weight` (out, ...) with the least sum of squared errors it can reach.

        sensitivity: of the loss to each weight (>= 0, of the weight's shape or one that broadcasts
        to it, such as (1, in) or the diagonal Fisher information); where it is given and the method
        `weighs`, the squared errors are weighted by it. Raises InputError for a weight with NaN or
        Inf, a sensitivity that does not fit, and where `problems` has something.
        """
        raise NotImplementedError

    @classmethod
    def fit_batch(
        cls,
        weights: Sequence[Tensor],
        settings: Any,
        *,
        seeds: Sequence[int],
        sensitivities: Sequence[Tensor | None] | None = None,
    ) -> list[tuple[Self, FitReport]]:
        """`fit` for weights of one shape on one device, each with its seed and, where there are
        some, its sensitivity, to the same bytes.

        A method overrides it where fitting them together is faster on a GPU.
        """
        return [
            cls.fit(weight, settings, seed=seed, sensitivity=sensitivity)
            for weight, seed, sensitivity in zip(
                weights, seeds, sensitivities or [None] * len(weights), strict=True
            )
        ]

    @classmethod
    def fit_rows(
        cls,
        rows: Callable[[int, int], Tensor],
        shape: Sequence[int],
        settings: Any,
        *,
        seed: int = 0,
        sensitivity: Tensor | None = None,
    ) -> tuple[Self, FitReport]:
        """Compresses a weight of `shape` that is read in parts: `rows(low, high)` gives some rows.

        A method that needs the whole weight reads it at once; one that does not overrides this.
        """
        return cls.fit(rows(0, shape[0]), settings, seed=seed, sensitivity=sensitivity)

    @classmethod
    def empty(cls, shape: Sequence[int], settings: Any) -> Self:
        """A codec whose tensors have the right shapes and dtypes, to be filled from a file.

        Floats have torch's default dtype; works on the meta device.
        """
        return cls(shape, settings)

    @classmethod
    def problems(cls, shape: Sequence[int], settings: Any) -> list[str]:
        """Why a weight of `shape` cannot be compressed with `settings`, each with its remedy."""
        return []

    @classmethod
    def ties(cls, shapes: Mapping[str, Sequence[int]]) -> list[list[str]] | None:
        """Of a method whose layers belong together: which of a group's layers, {name: shape} in the
        order of the model, must have the same settings. InputError where one lacks its partner."""
        return None

    @classmethod
    def has_ties(cls) -> bool:
        """Whether layers of this method belong together."""
        return cls.ties({}) is not None

    @classmethod
    def tensor_bytes(cls, shape: Sequence[int], settings: Any) -> int:
        """Bytes of all tensors as stored: floats fp16, the rest as it is in memory; no more."""
        with torch.device("meta"):
            return cls.empty(shape, settings).stored_size()

    def stored_size(self) -> int:
        """The same of this codec's own tensors."""
        return sum(prod(shape) * dtype.itemsize for dtype, shape in self.stored_layout().values())

    def stored_layout(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """{name: (dtype, shape)} of its tensors as a file holds them; none is larger there."""
        return {
            name: (torch.float16 if t.is_floating_point() else t.dtype, tuple(t.shape))
            for name, t in self.state_dict().items()
        }

    @classmethod
    def candidates(cls, shape: Sequence[int], nominal: Any) -> list[Any]:
        """The settings worth trying for a weight of `shape` under a size budget; none by default.

        `nominal` are those of the layer's group: what of them does not change the size is kept.
        """
        return []

    @classmethod
    def expected_distortions(
        cls,
        weight: Tensor,
        settings: Sequence[Any],
        *,
        seed: int = 0,
        sensitivity: Tensor | None = None,
        statistics: Tensor | None = None,
    ) -> list[float]:
        """About the relative distortion that `fit` would report with each of the settings, from a
        part of the weight; with a sensitivity, where the method weighs, the weighted one. A method
        that makes use of statistics may count what they save.

        Here: fits of at most `SAMPLED_WEIGHTS` weights in whole rows, evenly spaced.
        """
        rows = max(1, SAMPLED_WEIGHTS // max(1, weight[0].numel()))
        step = max(1, -(-len(weight) // rows))
        if sensitivity is not None and len(sensitivity) > 1:
            sensitivity = sensitivity[::step]
        some = weight[::step].contiguous()
        fits = (cls.fit(some, one, seed=seed, sensitivity=sensitivity) for one in settings)
        return [report.minimized for _, report in fits]

    @classmethod
    def checked(cls, weight: Tensor, settings: Any) -> Tensor:
        """The weight in float32, contiguous, detached. Raises InputError where it cannot be
        compressed so."""
        if problems := cls.problems(weight.shape, settings):
            raise InputError("; ".join(problems))
        if not bool(torch.isfinite(weight).all()):
            raise InputError("the weight has NaN or Inf; repair the checkpoint it comes from")
        return weight.detach().float().contiguous()

    @classmethod
    def checked_sensitivity(cls, sensitivity: Tensor | None, weight: Tensor) -> Tensor | None:
        """In float32 on the weight's device, not expanded to its shape. Raises InputError for one
        that does not fit."""
        if sensitivity is None:
            return None
        found = sensitivity.detach().to(weight.device, torch.float32)
        sizes = list(zip(found.shape, weight.shape, strict=False))
        if found.ndim != weight.ndim or any(own not in (1, size) for own, size in sizes):
            raise InputError(
                f"a sensitivity of shape {tuple(found.shape)} does not fit a weight of "
                f"{tuple(weight.shape)}"
            )
        if not bool((torch.isfinite(found) & (found >= 0)).all()):
            raise InputError("a sensitivity must be finite and not negative; measure it again")
        return found

    @torch.no_grad()
    def measured(
        self, weight: Tensor, started: float, sensitivity: Tensor | None = None
    ) -> FitReport:
        """The report of a fit to `weight` that began when time.perf_counter() was `started`."""
        errors = Errors()
        errors.add(weight, self.decode(), sensitivity)
        size = self.tensor_bytes(self.shape, self.settings)
        seconds = time.perf_counter() - started
        return FitReport(
            errors.relative, size * 8 / weight.numel(), size, seconds,
            weighted_distortion=errors.weighted,
        )  # fmt: skip

    def coded_codes(self) -> Tensor | None:
        """What a model's file holds in place of the tensor `codes`: uint8, fewer bytes; None where
        that does not save enough."""
        return None

    def expect_coded(self, size: int) -> None:
        """Makes room in `codes` for `size` such bytes. InputError where they cannot be so many."""
        raise InputError(f"`{self.method}` has no codes that could be coded")

    def expand(self) -> None:
        """Puts `codes` that have been read so into the form used in memory. Raises InputError where
        they are damaged."""

    def check(self) -> None:
        """Raises InputError when the tensors, read from a file, cannot be a weight."""
        for name, tensor in self.state_dict().items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise InputError(f"{name} has NaN or Inf")

    @torch.no_grad()
    def round_stored(self) -> None:
        """Rounds every float tensor, in place, to the fp16 value that is stored."""
        for tensor in self.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half())

    def extra_repr(self) -> str:
        return f"{self.method}, shape={self.shape}"
