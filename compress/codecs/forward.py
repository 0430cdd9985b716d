"""What a codec does in forward passes: it decodes its weight or, while in recovery, learns."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from compress.config import RecoveryConfig
from compress.straight_through import straight_through


class ForwardCodec(nn.Module):
    """The part of `Codec` that a layer computes with."""

    latent: nn.Parameter | None  # what learns beside or in place of the codes (compress.learning)

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("latent", None)

    def decode(self) -> Tensor:
        """The weight, of `shape`; differentiable in the float parameters."""
        raise NotImplementedError

    def decode_rows(self, rows: Tensor) -> Tensor:
        """Rows (..., in) of the weight at integer `rows` (...); differentiable like `decode`."""
        return self.decode().flatten(1)[rows]

    def rate(self, name: str) -> float:
        """Learning rate of the float parameter `name`, in those of centroids."""
        return 1.0

    def learns(self, recovery: RecoveryConfig) -> bool:
        """Whether more than its float parameters learns while the group of the weight is recovered.

        If so: `learn` before the training, also one that is resumed; `learned` and `penalty` in
        every step, `refresh` now and then; `settle` at the end. Later, codes stay as they are.
        """
        return False

    @classmethod
    def learning_memory(cls, shape: Sequence[int], settings: Any) -> int:
        """About the bytes that `learned` keeps for its backward pass, beside the weight; for the
        plan. 0 where it is next to nothing."""
        return 0

    def learn(self, weight: Tensor) -> None:
        """Registers what learns, from the uncompressed `weight`: parameters, which checkpoints of
        the training hold, `latent` among them."""
        self.latent = nn.Parameter(weight.detach().float().clone())

    def learned(self) -> Tensor:
        """In place of `decode` while it learns: differentiable in `latent`, too. Where no gradient
        is asked for, about the weight that `settle` would leave."""
        return straight_through(self.decode(), self.latent)

    def learned_rows(self, rows: Tensor) -> Tensor:
        """In place of `decode_rows` while it learns."""
        return straight_through(self.decode_rows(rows), self.latent_rows(rows))

    def latent_rows(self, rows: Tensor) -> Tensor:
        """Rows (..., in) of `latent` at integer `rows` (...)."""
        assert self.latent is not None
        return F.embedding(rows, self.latent.flatten(1))

    def penalty(self) -> Tensor | None:
        """What is added to the loss while it learns, a scalar."""
        return None

    def refresh(self) -> int:
        """Every `reassign_steps` steps: brings the codes up to date; returns how many changed."""
        return 0

    def settle(self) -> None:
        """Ends the learning: the tensors become what a file holds, `latent` and the like go."""
        self.latent = None
