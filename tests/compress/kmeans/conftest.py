"""Points to cluster, and the devices to do it on."""

import pytest
import torch


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda",
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ),
    ]
)
def device(request):
    return request.param


@pytest.fixture
def gaussian():
    def make(n=3000, d=8, seed=0, zero=0.0):
        """Standard normal points, a part of which are zero blocks."""
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(n, d, generator=generator)
        x[torch.rand(n, generator=generator) < zero] = 0.0
        return x

    return make
