"""Error feedback: smaller errors of the output within the same bytes, whatever the inputs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.codecs import product_feedback, product_price
from compress.codecs.moments import damped, squares, times, upper_factor
from compress.codecs.product_settings import CodebookConfig
from compress.codecs.registry import codec_class
from compress.errors import InputError

PRODUCT = codec_class("product")


def correlated(n: int, seed: int = 0, large: float = 3.0) -> torch.Tensor:
    """E[x x'] (1, n, n) of inputs that have much in common, and some large ones."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(8 * n, n, generator=draw) @ torch.randn(n, n, generator=draw) / n**0.5
    x = x * (1 + large * (torch.arange(n) % 7 == 0))
    return (x.T @ x / len(x))[None]


def weight(out: int = 48, n: int = 96, seed: int = 1) -> torch.Tensor:
    return torch.randn(out, n, generator=torch.Generator().manual_seed(seed))


def fits(values, moments, **keys):
    """Without feedback and with it: (codec, report) each."""
    config = CodebookConfig(**({"block_size": 2, "codebook_size": 16} | keys))
    plain = PRODUCT.fit(values, config)
    config = config.model_copy(update={"error_feedback": True})
    return plain, PRODUCT.fit(values, config, statistics=moments)


def output_error(codec, values, moments) -> float:
    rows = values.flatten(1)
    error = squares(rows - codec.decode().detach().flatten(1), moments[0]).sum()
    return float(error / squares(rows, moments[0]).sum())


@pytest.mark.parametrize(
    "keys",
    [{}, {"block_size": 4}, {"row_scale": True}, {"codebook_size": 64, "code_bits": 3.5}],
    ids=str,
)
def test_the_output_is_nearer_in_as_many_bytes(keys):
    values, moments = weight(160, 128), correlated(128)
    (plain, _), (fed, report) = fits(values, moments, **keys)
    before, after = (output_error(codec, values, moments) for codec in (plain, fed))
    assert report.output_distortion_nearest == pytest.approx(before, rel=1e-4)
    assert report.output_distortion == pytest.approx(after, rel=1e-4)
    assert after < 0.75 * before
    if "code_bits" in keys:
        assert len(fed.coded_codes()) <= fed.most_bytes


def test_rows_that_count_more_lose_less():
    values, moments = weight(160, 64), correlated(64)
    often = torch.ones(160, 1)
    often[::4] = 50.0
    config = CodebookConfig(block_size=2, codebook_size=64, code_bits=3.0, error_feedback=True)
    codec, report = PRODUCT.fit(values, config, statistics=moments, sensitivity=often)
    lost = squares(values - codec.decode().detach(), moments[0])
    whole = squares(values, moments[0])
    weighed = float((lost * often[:, 0]).sum() / (whole * often[:, 0]).sum())
    assert report.output_distortion == pytest.approx(weighed, rel=1e-4)
    assert report.output_distortion < 0.75 * report.output_distortion_nearest
    assert lost[::4].mean() < 0.5 * lost[1::4].mean()


def test_the_price_for_a_large_weight_is_sought_on_a_part_of_it(monkeypatch):
    values, moments = weight(640, 64), correlated(64)
    keys = {"codebook_size": 64, "code_bits": 3.5}
    _, (whole, whole_report) = fits(values, moments, **keys)
    monkeypatch.setattr(product_price, "SAMPLE", 640 * 8)
    monkeypatch.setattr(product_feedback, "HEIGHT", 100)
    _, (parted, report) = fits(values, moments, **keys)
    assert 0.97 * parted.most_bytes < len(parted.coded_codes()) <= parted.most_bytes
    assert report.output_distortion == pytest.approx(whole_report.output_distortion, rel=0.03)
    assert not torch.equal(parted.codes, whole.codes)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 2, 4]), st.booleans())
def test_never_worse_than_nearest_centroids(seed, block_size, scaled):
    values, moments = weight(16, 24, seed), correlated(24, seed)
    if seed % 5 == 0:
        moments = moments * torch.eye(24)  # nothing in common
    _, (_, report) = fits(values, moments, block_size=block_size, row_scale=scaled)
    assert report.output_distortion <= report.output_distortion_nearest


def test_the_same_bytes_for_any_number_of_threads():
    values, moments = weight(200, 384), correlated(384)
    known, threads = set(), torch.get_num_threads()
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            codec = fits(values, moments, codebook_size=64, code_bits=3.5)[1][0]
            known.add(codec.codes.numpy().tobytes() + codec.codebook.detach().numpy().tobytes())
    finally:
        torch.set_num_threads(threads)
    assert len(known) == 1


def test_without_moments_and_for_groups_codes_stay_nearest():
    values = weight(16, 24)
    config = CodebookConfig(block_size=2, codebook_size=16)
    plain = PRODUCT.fit(values, config)[0].state_dict()
    fed = config.model_copy(update={"error_feedback": True})
    for moments in (None, torch.eye(24).expand(2, 24, 24)):
        codec, report = PRODUCT.fit(values, fed, statistics=moments)
        assert report.output_distortion is None
        assert all(torch.equal(plain[name], t) for name, t in codec.state_dict().items())


@pytest.mark.parametrize(
    "moments", [torch.eye(20)[None], torch.full((1, 24, 24), float("nan"))], ids=["shape", "nan"]
)
def test_moments_that_cannot_be_are_refused(moments):
    config = CodebookConfig(block_size=2, codebook_size=16, error_feedback=True)
    with pytest.raises(InputError, match="moments"):
        PRODUCT.fit(weight(16, 24), config, statistics=moments)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 150), st.integers(0, 100))
def test_the_factor_is_upper_triangular_and_gives_the_moments(n, seed):
    moments = damped(correlated(n, seed)[0])
    factor = upper_factor(moments)
    assert torch.equal(factor, factor.triu())
    assert torch.allclose(factor @ factor.T, moments, atol=1e-9 * float(moments.max()) * n)


def test_inputs_that_were_never_seen_are_allowed():
    moments = torch.zeros(1, 24, 24)
    codec, report = fits(weight(16, 24), moments)[1]
    assert report.output_distortion == 0.0
    assert bool(codec.decode().isfinite().all())
    assert torch.equal(times(torch.ones(3, 24), moments[0]), torch.zeros(3, 24))
