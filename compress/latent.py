"""Codes that go on learning: each compressed weight has a latent one while the model is recovered.

The latent weight starts as the uncompressed weight and gets the gradient of the decoded one, as if
decoding were the identity (straight-through estimator, Bengio et al. 2013, arXiv 1308.3432). Every
few steps each block takes the centroid that is nearest to its latent weight, as the weights of
quantization-aware training follow their grid; the centroids learn beside it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from compress.codecs.base import Codec


class _StraightThrough(torch.autograd.Function):
    """Forward: `decoded`. Backward: the gradient goes to both."""

    @staticmethod
    def forward(ctx: Any, decoded: Tensor, latent: Tensor) -> Tensor:
        return decoded.view_as(decoded)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        return grads[0], grads[0]


def straight_through(decoded: Tensor, latent: Tensor | None) -> Tensor:
    """`decoded` itself, whose gradient `latent` (of the same shape) gets, too."""
    return decoded if latent is None else _StraightThrough.apply(decoded, latent)


class Latents:
    """The latent weights of a model's layers; `refresh()` re-assigns every code."""

    def __init__(self, codecs: list["Codec"]):
        self._codecs = codecs

    def refresh(self) -> int:
        """Each block takes its nearest centroid; returns how many chose another one."""
        return sum(
            codec.reassign(codec.latent) for codec in self._codecs if codec.latent is not None
        )


@contextmanager
def latent_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[Latents]:
    """Inside, the compressed layers named in `weights` have those as latent weights.

    Layers whose method knows no re-assignment are left alone. They are parameters of the model, and
    part of its checkpoints, until the end.
    """
    codecs = []
    for name, weight in sorted(weights.items()):
        codec: Any = model.get_submodule(name).codec
        if codec.can_reassign:
            codec.latent = nn.Parameter(weight.detach().float().clone())
            codecs.append(codec)
    try:
        yield Latents(codecs)
    finally:
        for codec in codecs:
            codec.latent = None
