"""The same bytes for any number of threads, any chunk, either backend, and every process."""

import os
import subprocess
import sys

import pytest
import torch

from compress.kmeans import distance, fit, halving, kernels_torch
from compress.kmeans.distance import sweep
from compress.kmeans.points import prepare


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def plain(monkeypatch):
    """Fits without numba."""
    for module in (distance, halving):
        monkeypatch.setattr(module, "backend", lambda device: "torch")


def weights_for(x, kind):
    generator = torch.Generator().manual_seed(9)
    shape = {"none": None, "point": (x.shape[0],), "coordinate": tuple(x.shape)}[kind]
    return None if shape is None else torch.rand(shape, generator=generator)


def same(a, b):
    return (
        torch.equal(a.codebook, b.codebook)
        and torch.equal(a.codes, b.codes)
        and a.distortion_trace == b.distortion_trace
        and a.relative_distortion == b.relative_distortion
    )


@pytest.mark.parametrize(
    "seeding, kind",
    [
        ("partition", "none"),
        ("partition", "point"),
        ("partition", "coordinate"),
        ("partition-even", "none"),
        ("kmeans++", "none"),
        ("random", "none"),
    ],
)
def test_threads(gaussian, threads, seeding, kind):
    x = gaussian(n=20000, zero=0.1)
    options = {"seeding": seeding, "iterations": 3, "weights": weights_for(x, kind)}
    results = []
    for count in (1, 2, 4):
        threads(count)
        results.append(fit(x, 24, **options))
    assert same(results[0], results[1]) and same(results[0], results[2])


@pytest.mark.parametrize("kind", ["none", "point", "coordinate"])
@pytest.mark.parametrize("d", [1, 3, 8, 24])
def test_numba_and_torch_find_the_same(gaussian, kind, d):
    pytest.importorskip("numba")
    x = gaussian(n=20000, d=d, zero=0.2) + 10.0
    w = weights_for(x, kind)
    points = prepare(x[None], None if w is None else (w[:, None] if w.ndim == 1 else w)[None])
    row = torch.randint(20000, (50,), generator=torch.Generator().manual_seed(2))
    centroids = points.normalized(torch.zeros_like(row), row)[None]  # with duplicates: ties
    a, b = sweep(points, centroids, "numba"), sweep(points, centroids, "torch")
    assert torch.equal(a.codes.long(), b.codes)
    for name in ("count", "sums", "mass", "distortion"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


@pytest.mark.parametrize("kind", ["none", "point", "coordinate"])
def test_a_whole_fit_without_numba(gaussian, request, kind):
    x = gaussian(zero=0.3)
    w = weights_for(x, kind)
    expected = fit(x, 40, weights=w, anneal=2)
    request.getfixturevalue("plain")
    assert same(fit(x, 40, weights=w, anneal=2), expected)


@pytest.mark.parametrize("scores", [7, 1000, 1 << 24])
def test_chunks(gaussian, plain, monkeypatch, scores):
    x = gaussian(zero=0.3)
    expected = fit(x, 20, iterations=3)
    monkeypatch.setattr(kernels_torch, "CHUNK_SCORES", scores)
    assert same(fit(x, 20, iterations=3), expected)


def test_ties_go_to_the_lowest_row(gaussian):
    x = gaussian(n=500)
    points = prepare(x[None])
    row = torch.arange(7).repeat(3)
    centroids = points.normalized(torch.zeros_like(row), row)[None]
    assert int(sweep(points, centroids).codes.max()) < 7
    assert int(sweep(points, centroids, "torch").codes.max()) < 7


SCRIPT = """
import hashlib, torch
from compress.kmeans import fit
x = torch.randn(3000, 8, generator=torch.Generator().manual_seed(0))
r = fit(x, 40)
print(hashlib.sha256(r.codebook.numpy().tobytes() + r.codes.numpy().tobytes()).hexdigest())
"""


def test_processes_without_cache_or_compiler(tmp_path):
    """The result survives an unwritable cache folder and a machine without numba."""
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    numba_off = {"SHRINKFLOW_KMEANS": "torch"}
    digests = set()
    for extra in ({}, {"NUMBA_CACHE_DIR": str(blocked / "cache")}, numba_off):
        environment = {**os.environ, **extra, "OMP_NUM_THREADS": "1"}
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr
        digests.add(run.stdout)
    assert len(digests) == 1
