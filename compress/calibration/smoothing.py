"""A measured statistic as weights of squared errors: of mean 1, and never 0."""

import torch
from torch import Tensor

SHARE = 0.1  # of the mean


def smoothed(found: Tensor) -> Tensor:
    """`found` >= 0, a tenth of its mean added, over its new mean; ones where all of it is 0.

    What the calibration rows never touch, as most rows of a vocabulary, has a statistic of 0 and
    still occurs later: it then counts for a tenth of an average weight, and is coded like any
    other. float32, of the shape of `found`.
    """
    found = found.double()
    mean = found.mean()
    if not mean > 0:
        return torch.ones_like(found, dtype=torch.float32)
    return ((found / mean + SHARE) / (1 + SHARE)).float()
