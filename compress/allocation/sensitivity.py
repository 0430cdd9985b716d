"""How much each weight matters to the loss: the diagonal of the Gauss-Newton matrix, by layer.

The loss is that of the recovery (compress.distillation): zero, with zero gradient, where student
and teacher are equal. Its second order there is 1/2 dw' J'HJ dw, with J the outputs' Jacobian and H
the loss's Hessian in the outputs. For r with E[rr'] = H the gradient g of <r, outputs> has
E[gg'] = J'HJ: one backward pass a draw, whatever the loss and the encoder, without labels
(Schraudolph 2002; Martens and Grosse 2015, section 5). The errors of a codec are taken as
uncorrelated with one another and with g^2, but for what they share: centroids are means, so that
What is W made smaller by the relative distortion D. With s = mean(E[g^2]) and r = E[<g, W>^2] the
damage of a layer is 1/2 (s (D - D^2) ||W||^2 + r D^2).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.config import RecoveryConfig
from compress.progress import progress_bar
from compress.rows import Rows, batches, predictions
from compress.selection import LayerRef

BATCHES, BATCH_SIZE = 8, 16


def sensitivity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    refs: Sequence[LayerRef],
    recovery: RecoveryConfig,
    *,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """(s, r) of each layer, by name: what `damage` takes.

    From BATCHES batches of rows, evenly spaced. The same for the same seed and number of threads.
    """
    chosen = batches(rows, tokenizer, BATCHES * BATCH_SIZE, BATCH_SIZE)
    return sensitivity_on(model, chosen, refs, recovery, seed=seed)


def sensitivity_on(
    model: PreTrainedModel,
    chosen: Sequence[Mapping[str, Tensor]],
    refs: Sequence[LayerRef],
    recovery: RecoveryConfig,
    *,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """`sensitivity` from these batches of inputs, of text or anything else: one draw for each."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.eval().requires_grad_(False).to(device)
    weights = {ref.name: model.get_parameter(ref.tensor).requires_grad_() for ref in refs}
    total = dict.fromkeys(weights, (0.0, 0.0))
    generator = torch.Generator().manual_seed(seed)
    with progress_bar("sensitivity", len(chosen)) as bar:
        for batch in chosen:
            inputs = {name: value.to(device) for name, value in batch.items() if name != "labels"}
            outputs = model(**inputs, output_hidden_states=recovery.hidden_weight > 0)
            probe = random_projection(outputs, inputs.get("attention_mask"), recovery, generator)
            grads = torch.autograd.grad(probe, list(weights.values()), allow_unused=True)
            for name, grad in zip(weights, grads, strict=True):
                if grad is not None:
                    s, r = total[name]
                    s += float(grad.square().mean()) / len(chosen)
                    r += float((grad * weights[name].detach()).sum()) ** 2 / len(chosen)
                    total[name] = s, r
            bar.advance()
    return total


def damage(sensitivity: Sequence[float], energy: float, distortion: float) -> float:
    """What a weight of `energy` ||W||^2, changed by this relative distortion, adds to the loss."""
    s, r = sensitivity
    square = min(distortion, distortion**2)
    return 0.5 * (s * (distortion - square) * energy + r * square)


def uniform(
    curves: Mapping[str, Mapping[str, Any]], layers: Iterable[Any]
) -> dict[str, tuple[float, float]]:
    """Without data: as if the same relative error did the same harm to every weight of the model.

    curves: `measure` by layer; layers: SelectedLayer."""
    found = {}
    for layer in layers:
        energy = curves[layer.ref.name]["energy"]
        count = 2.0 * _weights(layer.ref) if energy else 0.0
        found[layer.ref.name] = count / (energy or 1.0), count
    return found


def random_projection(
    outputs: Any, mask: Tensor | None, recovery: RecoveryConfig, generator: torch.Generator
) -> Tensor:
    """<r, outputs> for a random r with E[rr'] the Hessian of the recovery loss in the outputs.

    Hidden states, a layer of L, on the kept tokens: 2 w / (L ||t||^2) I. Logits of n predictions at
    temperature T: w / n (diag(p) - pp'), the covariance of sqrt(p) e - p <sqrt(p), e> for signs e.
    (One-hot minus p for a class drawn from p has it, too, but where the model is sure of itself
    all of it would come from a few rare draws.)
    """
    logits = predictions(outputs.logits, mask).float()  # (predictions, classes)
    p = (logits.detach() / recovery.temperature).softmax(-1)
    signed = p.sqrt() * _signs(p, generator)  # (predictions, classes)
    r = signed - p * signed.sum(-1, keepdim=True)
    probe = (recovery.logits_weight / len(p)) ** 0.5 * (r * logits).sum()
    if recovery.hidden_weight > 0:
        states = outputs.hidden_states
        for state in states:
            kept = predictions(state, mask).float()  # (kept tokens, hidden)
            scale = 2 * recovery.hidden_weight / (len(states) * kept.detach().square().sum())
            probe = probe + scale.sqrt() * (_signs(kept, generator) * kept).sum()
    return probe


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    return (torch.randint(2, like.shape, generator=generator) * 2 - 1).to(like)


def _weights(ref: LayerRef) -> int:
    return torch.Size(ref.shape).numel()
