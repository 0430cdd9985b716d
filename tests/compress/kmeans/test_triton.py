"""The Triton kernel finds the codes of the CPU's: in its interpreter, which needs no GPU."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

SCRIPT = """
import torch
from compress.kmeans.distance import sweep
from compress.kmeans.points import prepare
g = torch.Generator().manual_seed(0)
for b, n, d, k, columns in ((2, 300, 8, 37, 0), (1, 129, 5, 3, 0), (3, 200, 4, 40, 4), (1, 50, 3, 33, 1)):
    x = torch.randn(b, n, d, generator=g) + 100
    points = prepare(x, torch.rand(b, n, columns, generator=g) if columns else None)
    centroids = 0.3 * torch.randn(b, k, d, generator=g, dtype=torch.float64)
    centroids[:, 1] = centroids[:, 0]  # ties go to the lowest row
    assert torch.equal(sweep(points, centroids, "triton").codes, sweep(points, centroids, "torch").codes)
"""  # noqa: E501


def test_codes():
    environment = {**os.environ, "TRITON_INTERPRET": "1", "SHRINKFLOW_KMEANS": "torch"}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
