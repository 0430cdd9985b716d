"""What error feedback leaves of a layer's output error, told before anything is fitted.

With H = R R', R upper triangular, the output's error is the sum of the squares of q_j R_jj, where
q_j = t_j - c_j is what the code of column j misses of its target (Chee et al. 2023, arXiv
2307.13304, section 3). A target is the weight and what the codes before it got wrong: with
U = R diag(R)^-1, t_j = w_j - sum over i < j of q_i (U^-1)_ij. Codes that miss a part d of weights
miss it of what is fed back, too. So fine codes leave the sum of R_jj^2 over that of H_jj;
with coarse ones, whose errors add up, less is gained.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from compress.codecs.moments import damped, unit_upper_inverse, upper_factor


def gains(moments: Tensor, distortions: Sequence[float]) -> list[float]:
    """The part of the output's error that is left with feedback, 0 to 1, for codes that have these
    relative distortions without it. moments: H (n, n), any float dtype and device.

    Takes errors of different columns for independent, and columns of the weight for equal in size.
    """
    moments = damped(moments.cpu())
    factor = upper_factor(moments)
    own = factor.diagonal()  # R_jj
    passed_on = unit_upper_inverse(factor / own).square()  # (n, n): of q_i^2 to t_j^2
    d = torch.tensor(distortions, dtype=torch.float64).clamp(1e-9, 1)[:, None]
    target = torch.ones(len(d), len(own), dtype=torch.float64)  # t_j^2, of weights of 1
    for i in range(len(own)):  # an outer product at a time: in one order, for any number of threads
        target[:, i + 1 :] += d * target[:, i, None] * passed_on[i, i + 1 :]
    left = (target * own.square()).numpy().sum(1) / float(moments.diagonal().sum())
    return [min(1.0, float(x)) for x in left]
