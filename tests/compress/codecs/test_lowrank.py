import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from compress.codecs.lowrank import LowRankCodec, LowRankConfig
from compress.errors import InputError


def decoded(weight, sensitivity=None, **settings):
    codec, _ = LowRankCodec.fit(weight, LowRankConfig(**settings), sensitivity=sensitivity)
    return codec.decode()


@limits(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), p=st.sampled_from([1.0, 1.3, 1.7]))
def test_the_robust_error_is_below_that_of_the_svd_in_its_norm(seed, p):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(24, 16, generator=generator)
    weight[torch.rand(weight.shape, generator=generator) < 0.05] *= 20  # what SVD runs after

    def error(**settings):
        return (decoded(weight, rank=4, **settings) - weight).abs().pow(p).sum().item()

    assert error(p=p) < error(p=2)


@pytest.mark.parametrize("p", [1, 2])
def test_a_weight_of_that_rank_is_exact_but_for_fp16(p):
    weight = torch.randn(40, 5) @ torch.randn(5, 24)
    torch.testing.assert_close(decoded(weight, rank=5, p=p), weight, rtol=0, atol=0.02)


def test_the_robust_factors_see_through_outliers():
    torch.manual_seed(1)
    clean = torch.randn(60, 3) @ torch.randn(3, 40)
    noisy = clean.clone()
    noisy[torch.rand(60, 40) < 0.03] += 30
    robust, svd = (decoded(noisy, rank=3, p=p, iterations=40) for p in (1, 2))
    assert (robust - clean).square().mean() < 0.05 * (svd - clean).square().mean()


def test_sensitive_weights_are_fitted_more_closely():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 32, generator=generator)
    sensitivity = torch.rand(48, 32, generator=generator) ** 4

    def weighted(given):
        return (sensitivity * (decoded(weight, given, rank=8) - weight).square()).sum().item()

    assert weighted(sensitivity) < 0.9 * weighted(None)


@pytest.mark.parametrize("shape", [(1, 32), (48, 1)])
def test_a_sensitivity_of_inputs_or_outputs_is_met_as_well_as_can_be(shape):
    """What the SVD of the weight so multiplied leaves, and below what iterations reach."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(48, 32, generator=generator)
    sensitivity = torch.rand(shape, generator=generator) ** 4

    def weighted(given, **settings):
        error = (decoded(weight, given, rank=8, **settings) - weight).square()
        return (sensitivity * error).sum().item()

    exact = weighted(sensitivity)
    left = torch.linalg.svdvals((sensitivity.sqrt() * weight).double())[8:].square().sum().item()
    assert exact == pytest.approx(left, rel=1e-3)
    # two decimals of fp16: the iterations keep the best of what they round
    nearly = sensitivity * (1 + 1e-4 * torch.rand(48, 32, generator=generator))  # no product
    assert exact < 1.002 * weighted(nearly, iterations=100)
    assert exact < 0.9 * weighted(None)


@pytest.mark.parametrize("shape", [None, (1, 24), (40, 1)])
def test_what_a_rank_will_cost_is_known_before(shape):
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(40, 24, generator=generator)
    sensitivity = None if shape is None else torch.rand(shape, generator=generator)
    settings = [LowRankConfig(rank=rank) for rank in (2, 8, 20)]
    expected = LowRankCodec.expected_distortions(weight, settings, sensitivity=sensitivity)
    for one, value in zip(settings, expected, strict=True):
        report = LowRankCodec.fit(weight, one, sensitivity=sensitivity)[1]
        right = report.minimized
        assert value == pytest.approx(right, rel=0.01)


def test_bytes_are_two_thin_matrices():
    assert LowRankCodec.tensor_bytes((48, 4, 3, 3), LowRankConfig(rank=8)) == 8 * (48 + 36) * 2


def test_too_high_a_rank_is_a_problem():
    assert "rank 32 is more than the 16" in LowRankCodec.problems((16, 64), LowRankConfig())[0]
    with pytest.raises(InputError, match="rank 32"):
        LowRankCodec.fit(torch.randn(16, 64), LowRankConfig())
