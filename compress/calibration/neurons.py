"""What the neurons of feed-forward blocks tell: how often each fires, and for rows of which class
(Amjad, Liu and Geiger 2019, arXiv 1804.06679, section III).

A neuron is seen as one bit, whether its output is above 0, as the paper does for ReLU. The bits of
all tokens count, the class is that of the row that a token is in.

The mean that bias balancing puts in a neuron's place is not the plain one of the paper: in
transformers a few neurons are hundreds of times as large at a few tokens, where normalization
takes it away again, and their mean would be put out at every other token. Each token counts by the
inverse square of the block's neurons there, as least squares of relative errors has it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from compress.calibration.inputs import kept, watch
from compress.codecs.neurons import NeuronsCodec
from compress.selection import LayerRef, weight_of


def neurons(
    model: nn.Module,
    batches: Iterable[Mapping[str, Tensor]],
    refs: Sequence[LayerRef],
    classes: int,
) -> dict[str, Tensor]:
    """The statistics of each layer's neurons, by name: float32 (5, neurons), on the CPU.

    Rows: mean output (of weighted tokens), entropy, mutual information with the class, selectivity
    (bits each), and the L2 norm of the outgoing weights. The neurons of a block are the inputs of
    its last layer: those before it have the same statistics. `batches` have `labels`; else as
    `watch` has them, and the model. Raises InputError as `NeuronsCodec.ties`.
    """
    by_name = {ref.name: ref for ref in refs}
    ties = NeuronsCodec.ties({ref.name: ref.shape for ref in refs})
    readers = [ref for ref in refs if ref.name in {names[-1] for names in ties}]
    labels = torch.zeros(0, dtype=torch.int64)
    counts = {ref.name: _Counts(ref.shape[1], classes) for ref in readers}

    def unlabelled() -> Iterator[dict[str, Tensor]]:
        nonlocal labels
        for batch in batches:
            labels = batch["labels"]
            yield {name: tensor for name, tensor in batch.items() if name != "labels"}

    def add(ref: LayerRef, module: nn.Module, x: Tensor, mask: Tensor | None) -> None:
        rows = torch.arange(len(x), device=x.device).view(-1, *[1] * (x.ndim - 2))
        rows = kept(rows.expand(x.shape[:-1]), mask, 2)
        x = kept(x, mask, 3).reshape(-1, x.shape[-1])
        counts[ref.name].add(x.cpu(), labels.cpu()[rows.flatten().cpu()])

    watch(model, unlabelled(), readers, add)
    found: dict[str, Tensor] = {}
    for names in ties:
        weight = weight_of(model, by_name[names[-1]]).detach()
        norm = weight.double().norm(dim=0).cpu()
        own = torch.stack([*counts[names[-1]].bits(), norm]).float()
        found |= {name: own.clone() for name in names}
    return found


class _Counts:
    """Of the tokens of each class those for which a neuron fires, and the weighted sum of its
    outputs."""

    def __init__(self, size: int, classes: int):
        self._fired = torch.zeros(classes, size, dtype=torch.int64)
        self._tokens = torch.zeros(classes, dtype=torch.int64)
        self._sum = torch.zeros(size, dtype=torch.float64)
        self._weight = torch.zeros((), dtype=torch.float64)

    def add(self, x: Tensor, classes: Tensor) -> None:
        """x (tokens, neurons) of tokens in rows of these classes (tokens,)."""
        self._fired.index_add_(0, classes, (x > 0).long())
        self._tokens += torch.bincount(classes, minlength=len(self._tokens))
        squares = x.double().square().sum(1)  # (tokens,)
        weights = torch.where(squares > 0, 1 / squares, 0.0)
        self._sum += weights @ x.double()
        self._weight += weights.sum()

    def bits(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean, entropy, information, selectivity: float64 (neurons,) each."""
        seen = self._tokens > 0
        tokens, fired = self._tokens[seen].double(), self._fired[seen].double()
        total = tokens.sum().clamp_min(1)
        part, often = (
            fired / tokens[:, None],
            fired.sum(0) / total,
        )  # (classes, neurons), (neurons,)
        # how far the neuron is, in each class, from what it is in all: D(P(bit | class) || P(bit))
        apart = _cross(part, often) - _cross(part, part)
        apart = apart.clamp_min(0)
        information = (tokens / total) @ apart
        selectivity = apart.amax(0) if len(apart) else torch.zeros_like(often)
        mean = self._sum / self._weight.clamp_min(1e-300)
        return mean, _cross(often, often), information, selectivity


def _cross(p: Tensor, q: Tensor) -> Tensor:
    """Cross entropy, in bits, of a bit that is 1 with probability p, coded as if with q."""
    return -(torch.special.xlogy(p, q) + torch.special.xlog1py(1 - p, -q)) / torch.log(
        torch.tensor(2.0, dtype=torch.float64)
    )
