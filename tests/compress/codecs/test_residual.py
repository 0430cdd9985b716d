from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from compress.codecs.product import ProductCodec
from compress.codecs.product_settings import CodebookConfig
from compress.codecs.residual import ResidualCodec, ResidualConfig
from compress.errors import InputError

SIZE = {"block_size": 4, "codebook_size": 16}


@limits(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    codebooks=st.integers(2, 3),
    rounds=st.integers(0, 3),
    scale=st.sampled_from([1e-3, 1.0, 100.0]),
)
def test_error_is_never_above_that_of_the_single_codebook(seed, codebooks, rounds, scale):
    weight = torch.randn(16, 16, generator=torch.Generator().manual_seed(seed)) * scale
    settings = ResidualConfig(**SIZE, codebooks=codebooks, rounds=rounds)
    _, report = ResidualCodec.fit(weight, settings, seed=seed)
    _, single = ProductCodec.fit(weight, CodebookConfig(**SIZE), seed=seed)
    assert report.relative_distortion <= single.relative_distortion


def test_refinement_lowers_the_error():
    weight = torch.randn(128, 32, generator=torch.Generator().manual_seed(0))
    error = [
        ResidualCodec.fit(weight, ResidualConfig(**SIZE, rounds=rounds))[1].relative_distortion
        for rounds in (0, 2, 8)
    ]
    assert error[2] < error[1] < 0.98 * error[0]


def test_sums_of_few_centroids_are_found_again():
    coarse, fine = torch.zeros(4, 4), torch.zeros(4, 4)
    coarse[:, 0] = torch.tensor([-24.0, -8.0, 8.0, 24.0])
    fine[:, 1] = torch.tensor([-1.5, -0.5, 0.5, 1.5])
    blocks = (coarse[:, None] + fine[None]).reshape(-1, 4)  # all 16 sums, exact in fp16
    weight = blocks[torch.arange(128) % 16].reshape(32, 16)
    codec, _ = ResidualCodec.fit(weight, ResidualConfig(block_size=4, codebook_size=4))
    torch.testing.assert_close(codec.decode(), weight, rtol=0, atol=0.01)


def test_sensitive_weights_are_fitted_more_closely():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 32, generator=generator)
    sensitivity = torch.rand(64, 32, generator=generator) ** 6

    def weighted(**options):
        codec, _ = ResidualCodec.fit(weight, ResidualConfig(**SIZE), **options)
        return (sensitivity * (codec.decode() - weight).square()).sum().item()

    assert weighted(sensitivity=sensitivity) < 0.8 * weighted()


def test_problems_name_the_remedy():
    assert "does not divide" in ResidualCodec.problems((16, 9), ResidualConfig(**SIZE))[0]
    with pytest.raises(InputError, match="6 blocks are fewer than 16 centroids"):
        ResidualCodec.fit(torch.randn(2, 12), ResidualConfig(**SIZE))


def test_bytes_are_codes_and_codebooks():
    settings = ResidualConfig(**SIZE, codebooks=3)
    assert ResidualCodec.tensor_bytes((32, 64), settings) == 3 * (512 // 2 + 16 * 4 * 2)


@pytest.mark.parametrize("shape", [(96, 16), (24, 144, 1, 1), (32, 3, 3, 3)])
def test_a_small_layer_has_settings_under_a_budget_that_make_it_small(shape):
    candidates = [
        c
        for c in ResidualCodec.candidates(shape, ResidualConfig())
        if not ResidualCodec.problems(shape, c)
    ]
    assert min(ResidualCodec.tensor_bytes(shape, c) for c in candidates) < prod(shape)


def test_a_large_layer_is_tried_with_the_codebooks_of_its_group_alone():
    candidates = ResidualCodec.candidates((768, 768), ResidualConfig(codebook_size=512))
    assert {c.codebook_size for c in candidates} == {512}
    assert {c.block_size for c in candidates} == {4, 8, 16}
