"""float32 in memory, float16 on disk: which values survive the way, and rounding to those."""

import torch
from torch import Tensor


def stored(tensor: Tensor) -> Tensor:
    """`tensor` as fp16 where that loses nothing, else unchanged; integers are left alone."""
    if not tensor.is_floating_point() or tensor.is_meta or tensor.dtype == torch.float16:
        return tensor
    half = tensor.half()
    return half if torch.equal(half.to(tensor.dtype), tensor) else tensor


@torch.no_grad()
def round_to_half(tensor: Tensor) -> None:
    """Rounds `tensor`, in place, to the nearest fp16 values.

    A tensor with a value beyond fp16 (65504), as a running variance may have, keeps its own: it is
    then stored in its own precision.
    """
    if tensor.is_floating_point():
        half = tensor.half()
        if bool(torch.isfinite(half).all()):
            tensor.copy_(half)
