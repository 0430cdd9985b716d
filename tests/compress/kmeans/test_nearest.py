"""Codes of features: the least score, the lowest index, the same bytes on every path."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.kmeans import backend, kernels_torch
from compress.kmeans import nearest as module
from compress.kmeans.nearest import nearest


def problem(n: int, k: int, f: int, seed: int = 0):
    draw = torch.Generator().manual_seed(seed)
    x, c, h = (torch.randn(shape, generator=draw) for shape in ((n, f), (k, f), (k,)))
    return x, c, h


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 700), st.integers(1, 70), st.sampled_from([1, 3, 5, 9, 17, 20]))
def test_the_least_score_wins_and_of_equals_the_first(n, k, f):
    x, c, h = problem(n, k, f, n)
    c, h = torch.cat([c, c]), torch.cat([h, h])  # each twice
    codes = nearest(x, c, h)
    scores = (h - x.double() @ c.double().T).float()
    assert codes.dtype == torch.int64 and int(codes.max()) < k
    best = scores.gather(1, codes[:, None])[:, 0]
    assert torch.allclose(best, scores.min(1).values, atol=1e-5)


def test_numba_and_torch_find_the_same(monkeypatch):
    if backend.backend("cpu") != "numba":
        pytest.skip("no numba")
    x, c, h = problem(5000, 64, 5)
    c[32:] = c[:32] + 1e-7  # hardly different
    found = nearest(x, c, h)
    assert torch.equal(found, kernels_torch.nearest(x, c, h))
    monkeypatch.setattr(module, "backend", lambda device: "torch")
    assert torch.equal(found, nearest(x, c, h))


def test_the_same_codes_for_any_number_of_threads():
    x, c, h = problem(7000, 33, 9)
    threads, found = torch.get_num_threads(), set()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.add(nearest(x, c, h).numpy().tobytes())
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1
