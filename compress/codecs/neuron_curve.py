"""What `neurons` offers under a size budget: parts that stay, and how they are stored."""

from collections.abc import Sequence
from itertools import groupby
from math import prod

from torch import Tensor

from compress.blocks import row_size
from compress.codecs.neuron_settings import NeuronsConfig, kept_count, part_shape
from compress.codecs.registry import codec_class

PARTS = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8)  # of the neurons


def neuron_candidates(shape: Sequence[int], nominal: NeuronsConfig) -> list[NeuronsConfig]:
    """All PARTS, each with all that the method in `stored` offers for weights of that shape."""
    found = [nominal.model_copy(update={"keep": part}) for part in PARTS]
    if (own := nominal.part) is None:
        return found
    offers = codec_class(own.method).candidates
    return [
        one.model_copy(update={"stored": stored.model_dump(mode="json")})
        for one in found
        for stored in [own, *offers(part_shape(shape, one), own)]
    ]


def expected(weight: Tensor, settings: Sequence[NeuronsConfig], seed: int) -> list[float]:
    """The relative distortion with each of the settings: as if what goes had its share of the
    squares, of which importance says nothing, and what stays were stored as well whatever its part.
    """
    size = max(weight.shape[0], row_size(weight.shape))
    kept = (kept_count(weight.shape, one) / size for one in settings)
    errors = _stored(weight, settings, seed)
    return [1 - part + part * error for part, error in zip(kept, errors, strict=True)]


def _stored(weight: Tensor, settings: Sequence[NeuronsConfig], seed: int) -> list[float]:
    """The distortion of what stays by the `stored` of each of the settings: each of these is
    measured once, on the largest part that it is tried for."""
    found = {"None": 0.0}
    for _, ones in groupby(sorted(settings, key=lambda one: -one.keep), key=lambda one: one.keep):
        new = {str(one.stored): one for one in ones if str(one.stored) not in found}
        if not new:
            continue
        first = next(iter(new.values()))
        shape = part_shape(weight.shape, first)
        some = weight.flatten()[: prod(shape)].view(shape)
        parts = [one.part for one in new.values() if one.part is not None]
        codec = codec_class(parts[0].method)  # of one group: one method
        found |= zip(new, codec.expected_distortions(some, parts, seed=seed), strict=True)
    return [found[str(one.stored)] for one in settings]
