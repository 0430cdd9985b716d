"""What a fit cost and gave."""

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class FitReport:
    """What fitting one weight cost and gave; a method adds its own fields in a subclass.

    weighted_distortion: sum s (w - what)^2 / sum s w^2, where there was a sensitivity s.
    """

    relative_distortion: float
    bits_per_weight: float
    bytes: int
    seconds: float
    weighted_distortion: float | None = field(default=None, kw_only=True)

    @property
    def minimized(self) -> float:
        """The distortion that the fit made small: the weighted one, if there is one."""
        known = self.weighted_distortion
        return self.relative_distortion if known is None else known

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class OutputReport(FitReport):
    """The fit of a method that looks at the output of the layer.

    output_distortion: mean square of the output's error over that of the output;
    output_distortion_nearest: the same had each weight or block taken what is nearest to it. None
    where nothing was known of the inputs.
    """

    output_distortion: float | None = field(default=None, kw_only=True)
    output_distortion_nearest: float | None = field(default=None, kw_only=True)


@dataclass
class Errors:
    """Sums of squares of a weight and of what its decoded form lacks, and both times a sensitivity.
    They are added in one order, whatever the number of threads."""

    energy: float = 0.0
    error: float = 0.0
    weighted_energy: float = 0.0
    weighted_error: float = 0.0

    def add(self, weight: Tensor, decoded: Tensor, sensitivity: Tensor | None) -> None:
        """A weight or some rows of it; a sensitivity of its shape, or one that broadcasts to it."""
        self.energy += sum_of_squares(weight)
        self.error += sum_of_squares(weight - decoded)
        if sensitivity is not None:
            root = sensitivity.sqrt()
            self.weighted_energy += sum_of_squares(weight * root)
            self.weighted_error += sum_of_squares((weight - decoded) * root)

    @property
    def relative(self) -> float:
        """||W - What||^2 / ||W||^2; 0 for a weight of zeros."""
        return self.error / self.energy if self.energy else 0.0

    @property
    def weighted(self) -> float | None:
        """The same with the sensitivity; None where there was none, or nothing that it counts."""
        return self.weighted_error / self.weighted_energy if self.weighted_energy else None


def sum_of_squares(tensor: Tensor) -> float:
    """In double precision and in one order, whatever the number of threads, with little memory."""
    pieces = tensor.detach().flatten().split(1 << 14)  # torch sums so few in a single thread
    return float(sum(piece.double().square().sum() for piece in pieces))
