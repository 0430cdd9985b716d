"""Quant-Noise (Fan et al. 2020, arXiv 2004.07320): in each forward pass of training a random share
of every weight's blocks is replaced by phi(block), gradients pass straight through.

The stored weight is only ever read. A noisy copy shadows it while `forward` runs, so state dicts,
checkpoints and tied weights look as they do without noise.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.config import NoiseBlocks, NoiseConfig
from compress.errors import InputError, ShrinkflowError
from compress.kmeans import assign, fit
from compress.layers import dense_weight, oriented
from compress.stack import find_stack, share_of
from compress.straight_through import straight_through

REFRESH_ITERATIONS = 4
SAMPLES_PER_CENTROID = 64
SCALAR_BITS = {"int8": 8, "int4": 4}


@dataclass
class BlockNoise:
    """The noise of one weight: rate p, blocks of `block_size` weights, noise function phi.

    For `codebook` phi is the nearest of the centroids of the last `refresh`.
    """

    function: str
    rate: float
    block_size: int
    codebook_size: int = 256
    seed: int = 0
    codebook: Tensor | None = field(default=None, repr=False)

    @torch.no_grad()
    def refresh(self, weight: Tensor) -> None:
        """Fits the centroids to the present `weight` (any shape, blocks along its rows).

        An even sample of the blocks is enough for centroids that only have to follow the weight.
        """
        if self.function == "codebook":
            blocks = weight.detach().reshape(-1, self.block_size)  # (n, d)
            step = max(1, len(blocks) // (SAMPLES_PER_CENTROID * self.codebook_size))
            sample = blocks[::step]
            size = min(self.codebook_size, len(sample))
            result = fit(sample, size, iterations=REFRESH_ITERATIONS, seed=self.seed)
            self.codebook = result.codebook.to(weight.dtype)

    def __call__(self, weight: Tensor, whole: Tensor | None = None) -> Tensor:
        """`weight` with a random share of its blocks noised; same shape and dtype. `whole`: the
        weight that these are rows of, if they are not all."""
        size = 1 if self.function in SCALAR_BITS else self.block_size
        clean = weight.detach()
        whole = clean if whole is None else whole.detach()
        blocks = clean.reshape(-1, size)  # (n, d)
        hit = (
            (torch.rand(len(blocks), device=weight.device) < self.rate).nonzero().squeeze(1)
        )  # (m,)
        noisy = blocks.clone().index_copy_(0, hit, self._phi(whole, blocks[hit]))
        # The whole gradient goes to the weight (section 4.2).
        return straight_through(noisy.reshape(weight.shape), weight)

    def _phi(self, weight: Tensor, blocks: Tensor) -> Tensor:
        """phi of the `blocks` (m, d) that are hit; the range of int8 and int4 is the weight's."""
        if self.function == "zero":
            return torch.zeros_like(blocks)
        if self.function == "mean":
            return blocks.mean(dim=1, keepdim=True).expand_as(blocks)
        if self.function == "codebook":
            return self._nearest(weight, blocks)
        return fake_quantize(blocks, *weight.aminmax(), bits=SCALAR_BITS[self.function])

    def _nearest(self, weight: Tensor, blocks: Tensor) -> Tensor:
        if self.codebook is None:
            self.refresh(weight)
        assert self.codebook is not None
        try:
            return self.codebook[assign(blocks, self.codebook).long()]
        except InputError:
            raise ShrinkflowError(
                "training diverged, a weight is NaN or Inf; lower the learning rate"
            ) from None


def fake_quantize(values: Tensor, low: Tensor, high: Tensor, *, bits: int) -> Tensor:
    """`values` on the uniform grid of 2^bits numbers from low to high (eq. 2), same dtype."""
    step = (high - low).clamp_min(torch.finfo(values.dtype).tiny) / (2**bits - 1)
    return torch.round((values - low) / step) * step + low


class QuantNoise:
    """All the noise of a model while it trains; `refresh()` refits its centroids."""

    def __init__(
        self, model: nn.Module, layers: Mapping[str, NoiseBlocks], config: NoiseConfig, seed: int
    ):
        self._noises: dict[int, tuple[nn.Module, BlockNoise]] = {}  # by weight
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._rate, self._warmup = config.rate, config.warmup_fraction
        if config.layerdrop > 0:
            self._drop_layers(model, config.layerdrop)
        if config.function != "none" and config.rate > 0:
            for i, (name, settings) in enumerate(sorted(layers.items())):
                module = model.get_submodule(name)
                noise = BlockNoise(
                    config.function,
                    config.rate,
                    settings.block_size,
                    settings.codebook_size,
                    seed=seed + i,
                )
                _, noise = self._noises.setdefault(id(module.weight), (module, noise))
                self._attach(module, noise)

    def _drop_layers(self, model: nn.Module, rate: float) -> None:
        """Layers that share their weights are dropped together, as they are pruned together."""
        _, layers = find_stack(model)
        drop, share = LayerDrop(rate), share_of(model)
        for i, layer in enumerate(layers):
            if i % share == 0:
                drop = LayerDrop(rate)
                self._handles.append(layer.register_forward_pre_hook(drop.draw))
            self._handles.append(layer.register_forward_hook(drop.skip, with_kwargs=True))

    def _attach(self, module: nn.Module, noise: BlockNoise) -> None:
        if isinstance(module, nn.Embedding):
            self._handles.append(module.register_forward_hook(_noisy_rows(noise)))
            return
        self._handles.append(module.register_forward_pre_hook(_shadow_weight(noise)))
        self._handles.append(module.register_forward_hook(_unshadow_weight, always_call=True))

    def refresh(self) -> None:
        """Refits every codebook to the present weights."""
        for module, noise in self._noises.values():
            noise.refresh(dense_weight(module))

    def advance(self, done: float) -> None:
        """Sets the rate for a step before which the part `done` of all steps was taken."""
        share = min(1.0, done / self._warmup) if self._warmup else 1.0
        for _, noise in self._noises.values():
            noise.rate = share * self._rate

    def remove(self) -> None:
        """Takes every hook off again."""
        for handle in self._handles:
            handle.remove()


@contextmanager
def quant_noise(
    model: nn.Module, layers: Mapping[str, NoiseBlocks], config: NoiseConfig, *, seed: int = 0
) -> Iterator[QuantNoise]:
    """Trains `model` with noise on the named `layers` (Linear, Embedding, Conv2d) inside the block.

    Layers of one weight have one codebook, each noises blocks of its own. Raises InputError where
    there is no stack of layers to drop.
    Randomness is torch's own (a Trainer checkpoint restores it); in eval mode nothing is noised.
    """
    noise = QuantNoise(model, layers, config, seed)
    try:
        yield noise
    finally:
        noise.remove()


def _shadow_weight(noise: BlockNoise) -> Callable[..., None]:
    """Before forward: an instance attribute `weight` hides the parameter, which stays as it is."""

    def hook(module: nn.Module, args: Any) -> None:
        if module.training:
            module.__dict__["weight"] = oriented(module, noise(dense_weight(module)))

    return hook


def _unshadow_weight(module: nn.Module, args: Any, output: Any) -> None:
    module.__dict__.pop("weight", None)


def _noisy_rows(noise: BlockNoise) -> Callable[..., Tensor | None]:
    """After forward of an embedding: only the rows that the batch looks up are noised."""

    def hook(module: nn.Embedding, args: Any, output: Tensor) -> Tensor | None:
        if not module.training:
            return None
        rows, inverse = torch.unique(args[0], return_inverse=True)
        looked_up = F.embedding(rows, module.weight, module.padding_idx)  # (rows, dim)
        return F.embedding(inverse, noise(looked_up, module.weight))

    return hook


class LayerDrop:
    """Hooks (Fan et al. 2019): with probability `rate` layers pass their input through."""

    def __init__(self, rate: float):
        self._rate, self._dropped = rate, False

    def draw(self, module: nn.Module, args: Any) -> None:
        """Before the first of them."""
        self._dropped = module.training and torch.rand(()).item() < self._rate

    def skip(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        """After each of them."""
        if not self._dropped:
            return None
        given = args[0] if args else next(iter(kwargs.values()))
        return (given, *output[1:]) if isinstance(output, tuple) else given
