"""Linear, Embedding and Conv2d around a codec; the weight exists only while it is used.

A layer that shares its weight with an earlier one (`tied=True`) holds the same codec without owning
it: the codec's tensors are in the state dict once, under the name of the first layer.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from compress.codecs.base import Codec
from compress.errors import InputError


class CompressedLayer(nn.Module):
    """A layer whose weight is decoded from `codec` in every forward pass."""

    codec: Codec

    def __init__(self, codec: Codec, tied: bool = False):
        super().__init__()
        self.tied = tied
        if tied:  # not registered: the first layer of the tie owns it
            self.__dict__["codec"] = codec
        else:
            self.codec = codec

    @property
    def weight(self) -> Tensor:
        """The decoded weight, for code that reads `layer.weight`; decoded anew at each access."""
        return self.codec.decode() if self.codec.latent is None else self.codec.learned()

    def extra_repr(self) -> str:
        return f"tied, {self.codec.extra_repr()}" if self.tied else ""


class CompressedLinear(CompressedLayer):
    """nn.Linear, and transformers' Conv1D: x (..., in) -> (..., out)."""

    def __init__(self, codec: Codec, bias: nn.Parameter | None = None, *, tied: bool = False):
        super().__init__(codec, tied)
        self.out_features, self.in_features = codec.shape
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.codec.biased(self.bias))


class CompressedEmbedding(CompressedLayer):
    """nn.Embedding: integer ids (...) -> (..., dim). Only the distinct rows of a batch are decoded.

    No gradient comes from the padding row.
    """

    def __init__(self, codec: Codec, padding_idx: int | None = None, *, tied: bool = False):
        super().__init__(codec, tied)
        self.num_embeddings, self.embedding_dim = codec.shape
        self.padding_idx = padding_idx

    def forward(self, ids: Tensor) -> Tensor:
        distinct, inverse = torch.unique(ids, return_inverse=True)  # (rows,), (...)
        learns = self.codec.latent is not None
        rows = (self.codec.learned_rows if learns else self.codec.decode_rows)(
            distinct
        )  # (rows, dim)
        if self.padding_idx is not None:
            rows = torch.where((distinct == self.padding_idx)[:, None], rows.detach(), rows)
        return F.embedding(inverse, rows)


class CompressedConv2d(CompressedLayer):
    """nn.Conv2d: x (batch, in, h, w) -> (batch, out, h', w'); geometry is that of `like`."""

    def __init__(self, codec: Codec, like: nn.Conv2d, *, tied: bool = False):
        super().__init__(codec, tied)
        self.in_channels, self.out_channels = like.in_channels, like.out_channels
        self.kernel_size, self.stride = like.kernel_size, like.stride
        self.padding, self.dilation = like.padding, like.dilation
        self.groups, self.padding_mode = like.groups, like.padding_mode
        # The order that F.pad wants, as nn.Conv2d computes it.
        self._pad = list(like._reversed_padding_repeated_twice)
        self.bias = like.bias

    def forward(self, x: Tensor) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, self._pad, mode=self.padding_mode), 0
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


KINDS: dict[type[nn.Module], str] = {
    nn.Linear: "linear",
    Conv1D: "linear",
    nn.Embedding: "embedding",
    nn.Conv2d: "conv2d",
}


def kind_of(module: nn.Module) -> str | None:
    """`linear`, `embedding`, `conv2d`, or None for a module that cannot be replaced.

    A subclass with its own forward (a scaled embedding, a masked convolution) computes something
    else than the layers of this file and is left alone, and so is an embedding that rewrites its
    own rows (`max_norm`).
    """
    for cls, kind in KINDS.items():
        if isinstance(module, cls):
            same = type(module).forward is cls.forward and "weight" in module._parameters
            if isinstance(module, nn.Conv2d):
                same = same and type(module)._conv_forward is nn.Conv2d._conv_forward
            if isinstance(module, nn.Embedding):
                same = same and module.max_norm is None
            return kind if same else None
    return None


def is_transposed(module: nn.Module) -> bool:
    """Whether it keeps its weight as (in, out): transformers' Conv1D, the linear layer of GPT-2."""
    return isinstance(module, Conv1D)


def oriented(module: nn.Module, weight: Tensor) -> Tensor:
    """A weight as the module keeps it, the way codecs have it, (out, ...); and the way back."""
    return weight.T if is_transposed(module) else weight


def dense_weight(module: nn.Module) -> Tensor:
    """The weight of an uncompressed layer as codecs have it, (out, ...); not a copy."""
    weight: Any = module.weight
    return oriented(module, weight)


def compressed(module: nn.Module, codec: Codec, *, tied: bool = False) -> CompressedLayer:
    """The compressed layer that takes the place of `module`: same bias, padding, stride, mode.

    Raises InputError where the module is of another kind or the codec holds another shape.
    """
    kind = kind_of(module)
    if kind is None:
        known = ", ".join(cls.__name__ for cls in KINDS)
        raise InputError(f"{type(module).__name__} cannot be compressed; only {known}")
    shape = tuple(dense_weight(module).shape)
    if shape != codec.shape:
        raise InputError(f"a codec of shape {codec.shape} does not fit {shape}")
    layer: CompressedLayer
    if isinstance(module, nn.Conv2d):
        layer = CompressedConv2d(codec, module, tied=tied)
    elif isinstance(module, nn.Embedding):
        layer = CompressedEmbedding(codec, module.padding_idx, tied=tied)
    else:
        layer = CompressedLinear(codec, module.bias, tied=tied)  # type: ignore[arg-type]
    return layer.train(module.training)
