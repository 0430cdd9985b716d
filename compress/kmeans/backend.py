"""Which kernels run on which device."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any


@cache
def backend(device: str) -> str:
    """numba | triton | torch; SHRINKFLOW_KMEANS=torch forces the plain path everywhere."""
    name = {"cpu": "numba", "cuda": "triton"}.get(device, "torch")
    if name == "torch" or os.environ.get("SHRINKFLOW_KMEANS", "") == "torch":
        return "torch"
    try:
        __import__(name)
    except Exception:  # a broken compiler (wrong numpy, no LLVM) must not break the library
        return "torch"
    return name


def compiled(function: Callable[..., Any]) -> Any:
    """numba.njit with the disk cache where there is a writable place for it, without elsewhere."""
    from numba import njit

    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except (RuntimeError, OSError):
        return njit(nogil=True, error_model="numpy")(function)
