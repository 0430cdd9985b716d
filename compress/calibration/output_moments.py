"""Second moments of the gradients at a layer's output, E[g g'], where its rows belong to inputs.

An error e of the row of an input changes the output of the layer by e wherever that input is met,
and the loss by e E[g g'] e' / 2: the metric that the inputs' moments are for other layers. The loss
is that of the distilled logits (compress.allocation.sensitivity says how random projections give
its Gauss-Newton matrix). Hidden states do not count: an embedding is the first of them, and all
directions of its rows would be worth the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from compress.allocation.sensitivity import random_projection
from compress.calibration.inputs import kept
from compress.calibration.moments import add_products
from compress.config import RecoveryConfig
from compress.selection import LayerRef, uses


def output_moments(
    model: nn.Module,
    batches: Iterable[Mapping[str, Tensor]],
    refs: Sequence[LayerRef],
    recovery: RecoveryConfig,
    *,
    seed: int = 0,
) -> dict[str, Tensor]:
    """E[g g'] of each layer, by name: float32 (1, n, n) for rows of n weights, on the CPU.

    One draw a batch, tokens that attention_mask keeps. `batches` are on the model's device, which
    `forward` takes; the model is in eval mode. The same for the same seed and number of threads.
    """
    model.requires_grad_(False)
    outputs: list[tuple[str, Tensor]] = []

    def leaf(name: str, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        output = output.detach().requires_grad_() if not output.requires_grad else output
        outputs.append((name, output))
        return output

    handles = [
        model.get_submodule(name).register_forward_hook(partial(leaf, ref.name))
        for ref in refs
        for name in uses(model, ref)
    ]
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys((ref.name for ref in refs), 0)
    only = recovery.model_copy(update={"hidden_weight": 0.0, "logits_weight": 1.0})
    generator = torch.Generator().manual_seed(seed)
    try:
        for batch in batches:
            mask = batch.get("attention_mask")
            probe = random_projection(model(**batch), mask, only, generator)
            grads = torch.autograd.grad(probe, [x for _, x in outputs], allow_unused=True)
            for (name, _), grad in zip(outputs, grads, strict=True):
                if grad is not None:
                    rows = kept(grad, mask, 3).reshape(1, -1, grad.shape[-1]).float()
                    counts[name] += rows.shape[1]
                    add_products(sums, name, rows)
            outputs.clear()
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for ref in refs:
        n = ref.shape[1]
        total = sums.pop(ref.name, None)
        mean = torch.zeros(1, n, n) if total is None else total[:, :n, :n] / counts[ref.name]
        # A probe is a mean over the batch: gradients are tiny, and only their ratios count.
        scale = float(mean.diagonal(dim1=1, dim2=2).mean())
        found[ref.name] = (mean / scale if scale > 0 else mean).cpu()
    return found
