"""The settings of a fit, checked once."""

from __future__ import annotations

from dataclasses import dataclass

from compress.errors import InputError
from compress.kmeans.relaxation import RELAXATION

SEEDINGS = ("partition", "partition-even", "kmeans++", "random")
SAMPLE = 256  # points a centroid
RESOLUTIONS = ("partition", "perturb")


@dataclass(frozen=True)
class Options:
    """See `fit` for what each setting does."""

    k: int
    seeding: str = "partition"
    empties: str = "partition"
    iterations: int = 15
    seed: int | tuple[int, ...] = 0
    relaxation: float = RELAXATION
    sample: int | None = SAMPLE
    tolerance: float = 1e-6
    anneal: int = 0

    @property
    def seeds(self) -> tuple[int, ...]:
        """One for each problem of a batch, or a single one for all."""
        return (self.seed,) if isinstance(self.seed, int) else self.seed

    @property
    def guided(self) -> bool:
        """Not a baseline: those are what they are on the points as given, one by one."""
        return self.seeding.startswith("partition") and self.empties == "partition"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InputError(f"kmeans: k must be at least 1, got {self.k}")
        for name in ("iterations", "anneal", "tolerance"):
            if not getattr(self, name) >= 0:
                raise InputError(f"kmeans: {name} must not be negative, got {getattr(self, name)}")
        if self.sample is not None and self.sample < 1:
            raise InputError(f"kmeans: sample must be at least 1 or None, got {self.sample}")
        if not 0.0 < self.relaxation < 2.0:
            raise InputError(
                f"kmeans: relaxation must lie between 0 and 2, got {self.relaxation}; "
                "1 is plain Lloyd, beyond 2 the updates diverge"
            )
        for name, known in (("seeding", SEEDINGS), ("empties", RESOLUTIONS)):
            value = getattr(self, name)
            if value not in known:
                raise InputError(
                    f"kmeans: unknown {name} {value!r}; choose from {', '.join(known)}"
                )
