"""Second moments of what goes into each layer, E[x x']: the metric of the layer's output.

An error E in the weight changes the output by x E', whose mean square is tr(E E[x x'] E').
"""

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.calibration.inputs import kept, watch
from compress.selection import LayerRef

TOKENS = 256  # that are multiplied at a time ...
SIXTEEN = 16  # ... by whole vectors of the processor: equal bytes for any number of threads


def moments(
    model: nn.Module, batches: Iterable[Mapping[str, Tensor]], refs: Sequence[LayerRef]
) -> dict[str, Tensor]:
    """E[x x'] of each layer, by name: float32 (groups, n, n), on the CPU.

    linear (1, in, in), of the tokens that attention_mask keeps. conv2d: n = in / groups * kh * kw,
    of the patches that each group of output channels sees. Not of embeddings, where errors within a
    row do not meet in an output: compress.calibration.output_moments.
    `batches` and the model as `watch` has them.
    """
    refs = [ref for ref in refs if ref.kind != "embedding"]
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys((ref.name for ref in refs), 0)

    def add(ref: LayerRef, module: nn.Module, x: Tensor, mask: Tensor | None) -> None:
        conv = isinstance(module, nn.Conv2d)
        for part in x.split(1) if conv else [kept(x, mask, 3)]:  # an image at a time
            part = _patches(module, part) if conv else part.reshape(1, -1, x.shape[-1])
            counts[ref.name] += part.shape[1]
            add_products(sums, ref.name, part.float())

    watch(model, batches, refs, add)
    found = {}
    for ref in refs:
        n = prod(ref.shape[1:])
        if ref.name in sums:
            found[ref.name] = (sums.pop(ref.name)[:, :n, :n] / counts[ref.name]).cpu()
        else:  # the model never calls it
            found[ref.name] = torch.zeros(1, n, n)
    return found


def add_products(sums: dict[str, Tensor], name: str, x: Tensor) -> None:
    """Adds x' x (groups, n, n) of x (groups, tokens, n), padded with zeros, in equal pieces."""
    x = F.pad(x, (0, -x.shape[2] % SIXTEEN, 0, -x.shape[1] % TOKENS))
    for piece in x.split(TOKENS, dim=1):
        product = piece.mT @ piece
        if name in sums:
            sums[name] += product
        else:
            sums[name] = product


def _patches(module: Any, image: Tensor) -> Tensor:
    """(groups, places, in / groups * kh * kw) of an image (1, in, h, w) that a Conv2d sees."""
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = F.pad(image, module._reversed_padding_repeated_twice, mode=mode)
    found = F.unfold(padded, module.kernel_size, module.dilation, stride=module.stride)
    return found.view(module.groups, -1, found.shape[-1]).mT
