"""What every fit promises, whatever the points."""

import subprocess
import sys

import pytest
import torch

from compress.errors import InputError
from compress.kmeans import assign, fit
from compress.kmeans.empties import RESOLVERS
from compress.kmeans.seeding import SEEDINGS


def gaussian(n=3000, d=8, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def relative(x, result):
    error = (x.double() - result.codebook.double()[result.codes]).square().sum()
    return float(error / x.double().square().sum())


@pytest.mark.parametrize("seeding", sorted(SEEDINGS))
@pytest.mark.parametrize("empties", sorted(RESOLVERS))
def test_codes_are_the_nearest_and_the_distortion_is_theirs(seeding, empties):
    x = gaussian()
    result = fit(x, 37, seeding=seeding, empties=empties, iterations=6)
    assert result.codebook.shape == (37, 8) and result.codebook.dtype == torch.float32
    assert torch.equal(result.codes, assign(x, result.codebook))
    assert result.relative_distortion == pytest.approx(relative(x, result), rel=1e-6)
    assert result.dead == 37 - result.codes.unique().numel() == 0
    assert len(result.distortion_trace) == len(result.empty_trace) == result.iterations
    assert result.relative_distortion < result.distortion_trace[0]


def test_few_or_no_distinct_points_are_not_errors():
    assert fit(torch.zeros(0, 4), 8).dead == 8
    for x in (torch.full((50, 4), 3.5), torch.zeros(50, 4), torch.ones(1, 4)):
        result = fit(x, 8)
        assert result.dead == 7 and result.relative_distortion == 0.0
        assert torch.equal(result.codebook[result.codes], x)


@pytest.mark.parametrize(
    "points, k, options, says",
    [
        (torch.tensor([[1.0], [float("nan")]]), 2, {}, "row 1"),
        (torch.tensor([[1.0], [float("inf")]]), 2, {}, "NaN or Inf"),
        (torch.ones(4, 2), 0, {}, "k must be"),
        (torch.ones(4), 2, {}, "shape"),
        (torch.ones(4, 2, dtype=torch.int32), 2, {}, "floating"),
        (torch.ones(4, 2), 2, {"weights": torch.ones(3)}, "weights"),
        (torch.ones(4, 2), 2, {"weights": -torch.ones(4)}, "negative"),
        (torch.ones(4, 2), 2, {"seeding": "best"}, "choose from"),
    ],
)
def test_bad_input_is_named(points, k, options, says):
    with pytest.raises(InputError, match=says):
        fit(points, k, **options)


def test_importing_costs_no_numba():
    code = "import sys, compress.kmeans; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
