"""The diagonal of the Gauss-Newton matrix of the recovery's loss, a value for each weight.

For that loss, which is 0 where student and teacher are equal, it is also the Fisher information of
the weights. compress.allocation.sensitivity says how E[g^2] of one random projection of the outputs
gives it without labels; there the mean of a layer is wanted, here every weight.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compress.allocation.sensitivity import random_projection
from compress.calibration.smoothing import smoothed
from compress.config import RecoveryConfig
from compress.layers import oriented
from compress.selection import LayerRef


def fisher(
    model: nn.Module,
    batches: Iterable[Mapping[str, Tensor]],
    refs: Sequence[LayerRef],
    recovery: RecoveryConfig,
    *,
    seed: int = 0,
) -> dict[str, Tensor]:
    """The weighting of each layer, by name, smoothed, of the shape of its weight.

    One draw a batch. Every gradient is squared, added and dropped as soon as it is there, so that
    beside model and activations there is one float for each weight. Rows of an embedding meet few
    tokens, and a row that was met once has one draw: for embeddings E[g^2] is taken as the product
    of what its row and what its column has on the mean (as Adafactor does, Shazeer and Stern 2018,
    arXiv 1804.04235), which averages over a whole row. The same for the same seed and number of
    threads.
    """
    model.requires_grad_(False)
    sums, handles = {}, []
    for ref in refs:
        weight = model.get_parameter(ref.tensor).requires_grad_()
        sums[ref.name] = _Product(weight) if ref.kind == "embedding" else _Whole(weight)
        handles.append(weight.register_post_accumulate_grad_hook(_into(sums[ref.name])))
    generator = torch.Generator().manual_seed(seed)
    for batch in batches:
        outputs = model(**batch, output_hidden_states=recovery.hidden_weight > 0)
        random_projection(outputs, batch.get("attention_mask"), recovery, generator).backward()
    for handle in handles:
        handle.remove()
    return {
        ref.name: oriented(model.get_submodule(ref.name), sums[ref.name].weighting()).cpu()
        for ref in refs
    }


def _into(found: Any) -> Any:
    def add(weight: Tensor) -> None:
        found.add(weight.grad)
        weight.grad = None

    return add


class _Whole:
    """A value for each weight."""

    def __init__(self, weight: Tensor):
        self._total = torch.zeros_like(weight, dtype=torch.float32, requires_grad=False)

    def add(self, grad: Tensor) -> None:
        self._total.addcmul_(grad.float(), grad.float())

    def weighting(self) -> Tensor:
        return smoothed(self._total)


class _Product:
    """A value for each row and one for each column."""

    def __init__(self, weight: Tensor):
        rows, columns = weight.shape
        self._rows = torch.zeros(rows, 1, dtype=torch.float64, device=weight.device)
        self._columns = torch.zeros(1, columns, dtype=torch.float64, device=weight.device)

    def add(self, grad: Tensor) -> None:
        square = grad.float().square()
        self._rows += square.sum(1, keepdim=True)
        self._columns += square.sum(0, keepdim=True)

    def weighting(self) -> Tensor:
        return smoothed(self._rows) * smoothed(self._columns)
