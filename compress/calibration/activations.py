"""Mean squares of what goes into each layer: the metric of "And the bit goes down".

What the next layer sees of an error in W is ||x (W - What)'||^2, on the mean over x the squared
errors weighted by E[x x'] (Stock et al. 2019, arXiv 1907.05686, section 3.1). Here its diagonal, so
that any codec can use it: each input feature weights its column of W.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.calibration.inputs import kept, watch
from compress.calibration.smoothing import smoothed
from compress.selection import LayerRef

# A look-up of a rare word matters more: on MiniLM, finetuned on Rotten Tomatoes, the mean squared
# gradient of one falls from 0.65, of words that occur 1 to 8 times, to 0.17 beyond 1,000 times.
RARE = 0.8


def activations(
    model: nn.Module,
    batches: Iterable[Mapping[str, Tensor]],
    refs: Sequence[LayerRef],
    words: Tensor | None = None,
) -> dict[str, Tensor]:
    """The weighting of each layer, by name, smoothed, of a shape that broadcasts to its weight.

    linear (1, in): E[x^2] of each feature. embedding (rows, 1): how often each row
    is looked up, as its input is one-hot, to the power RARE. conv2d (out, in / groups, kh, kw):
    E[x^2] of what each weight meets. Only tokens that attention_mask keeps count. Of a tied weight
    the layers of its own kind are looked at, together. `batches` are on the model's device, which
    `forward` takes; the model is in eval mode. `words` (rows,): look-ups of its input embedding in
    more rows than these.
    """
    seen = {ref.name: _start(model, ref) for ref in refs}

    def add(ref: LayerRef, module: Any, x: Tensor, mask: Tensor | None) -> None:
        total = seen[ref.name]
        if ref.kind == "embedding":
            rows = kept(x, mask, 2)
            total += torch.bincount(rows.flatten(), minlength=len(total))[:, None]
        elif ref.kind == "linear":
            squares = kept(x, mask, 3).flatten(0, -2).float().square().sum(0)  # (in,)
            total += squares.double().view_as(total)
        else:
            total += _met(module, x)

    watch(model, batches, refs, add)
    found = {}
    for ref in refs:
        total = seen[ref.name]
        if ref.kind == "embedding":
            if words is not None and model.get_submodule(ref.name) is _input_embedding(model):
                total = words.to(total)[:, None]
            total = total.pow(RARE)
        found[ref.name] = smoothed(total).cpu()
    return found


def _input_embedding(model: nn.Module) -> nn.Module | None:
    return model.get_input_embeddings() if isinstance(model, PreTrainedModel) else None


def _start(model: nn.Module, ref: LayerRef) -> Tensor:
    """Zeros for the sum of a layer; a sum, as `smoothed` divides by the mean."""
    rows, *inner = ref.shape
    shape = {"linear": (1, *inner), "embedding": (rows, 1)}
    device = model.get_parameter(f"{ref.name}.weight").device
    return torch.zeros(shape.get(ref.kind, ref.shape), dtype=torch.float64, device=device)


def _met(module: nn.Conv2d, x: Tensor) -> Tensor:
    """Sum over all places of the squares that each weight is multiplied with: the gradient, in the
    weight, of a convolution of x^2."""
    weight = torch.zeros_like(module.weight, requires_grad=True)
    with torch.enable_grad():
        total = module._conv_forward(x.float().square(), weight, None).sum()
        return torch.autograd.grad(total, weight)[0].double()
