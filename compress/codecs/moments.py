"""Arithmetic with the second moments H = E[x x'] of a layer's inputs: an error E of the weight
changes the mean square of the layer's output by tr(E H E').

All of it gives the same bytes for any number of threads: products have few terms or so many rows
of whole vectors that MKL multiplies them alike.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.errors import InputError

ROWS, VECTOR = 128, 16
PANEL = 64  # columns of a factor that are made at a time
DAMPING = 0.01  # of the mean of the diagonal is added to it


def checked_moments(moments: Tensor, rows: Tensor) -> Tensor:
    """float32 (groups, n, n) on the device of `rows` (out, n). Raises InputError for moments that
    do not fit so many rows and weights, or are not finite."""
    found = moments.detach().to(rows.device, torch.float32)
    out, n = rows.shape
    if found.ndim != 3 or found.shape[1:] != (n, n) or out % len(found):
        raise InputError(
            f"moments of shape {tuple(found.shape)} do not fit {out} rows of {n} weights"
        )
    if not bool(torch.isfinite(found).all()):
        raise InputError("the moments of a layer's inputs must be finite; measure them again")
    return found


def times(rows: Tensor, moments: Tensor) -> Tensor:
    """rows (m, n) @ moments (n, n), a part of the rows at a time."""
    m, n = rows.shape
    height = ROWS if rows.device.type == "cpu" else m
    wide = F.pad(moments, (0, -n % VECTOR, 0, -n % VECTOR))
    padded = F.pad(rows, (0, -n % VECTOR, 0, -m % height))
    return torch.cat([part @ wide for part in padded.split(height)])[:m, :n]


def squares(error: Tensor, moments: Tensor) -> Tensor:
    """e H e' (m,) of each row e of `error` (m, n), in double precision."""
    products = (times(error, moments) * error).double()
    return torch.from_numpy(products.cpu().numpy().sum(1)).to(error.device)


def damped(moments: Tensor) -> Tensor:
    """(n, n) float64, positive definite also where inputs are never seen, or seen together."""
    found = moments.double()
    mean = float(found.diagonal().sum()) / len(found)
    return found + (DAMPING * mean or 1.0) * torch.eye(len(found)).to(found)


def upper_factor(moments: Tensor) -> Tensor:
    """R (n, n) float64, upper triangular, with R R' = moments (n, n), positive definite.

    The Cholesky factor of the matrix in reversed order, in panels (Golub and Van Loan 2013,
    section 4.2.9).
    """
    left = moments.flip(0, 1).clone()  # what is not factored yet, in its lower right corner
    n = len(left)
    factor = torch.zeros_like(left)
    for low in range(0, n, PANEL):
        own, below = slice(low, min(n, low + PANEL)), slice(min(n, low + PANEL), n)
        head = torch.linalg.cholesky(left[own, own])
        factor[own, own] = head
        eye = torch.eye(len(head)).to(head)
        inverse = torch.linalg.solve_triangular(head, eye, upper=False)
        panel = left[below, own] @ inverse.T
        factor[below, own] = panel
        left[below, below] -= panel @ panel.T
    return factor.flip(0, 1)


def unit_upper_inverse(factor: Tensor) -> Tensor:
    """The inverse (n, n) of an upper triangular matrix with ones on its diagonal, in panels."""
    inverse = torch.eye(len(factor)).to(factor)
    for low in reversed(range(0, len(factor), PANEL)):
        own = slice(low, low + PANEL)
        inverse[own] = torch.linalg.solve_triangular(
            factor[own, own], inverse[own], upper=True, unitriangular=True
        )
        inverse[:low] -= factor[:low, own] @ inverse[own]
    return inverse
