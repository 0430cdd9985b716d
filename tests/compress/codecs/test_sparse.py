import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from compress.codecs.sparse import SparseCodec, SparseConfig
from compress.codecs.uniform import UniformCodec, UniformConfig
from compress.errors import InputError


def heavy_tailed(shape=(32, 64), seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) ** 3


@limits(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), bits=st.sampled_from([3, 4]))
def test_weighted_error_is_below_unweighted(seed, bits):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(64, 256, generator=generator)
    sensitivity = torch.rand(weight.shape, generator=generator) ** 4

    def weighted(**options):
        codec, _ = SparseCodec.fit(weight, SparseConfig(bits=bits), **options)
        return (sensitivity * (codec.decode() - weight).square()).sum().item()

    assert weighted(sensitivity=sensitivity) < weighted()


def test_outliers_are_kept_as_they_are():
    weight = heavy_tailed()
    codec, _ = SparseCodec.fit(weight, SparseConfig(bits=3, outliers=0.01))
    largest = weight.abs().flatten().topk(int(0.01 * weight.numel())).indices
    assert torch.equal(codec.decode().flatten()[largest], weight.flatten()[largest].half().float())


def test_the_most_sensitive_weights_are_kept_too():
    weight, sensitivity = heavy_tailed(), torch.zeros(32, 64)
    sensitivity[5, 7] = sensitivity[9, 1] = 1.0
    settings = SparseConfig(bits=3, outliers=0.01)  # 20 weights, 2 of them for their sensitivity
    decoded = SparseCodec.fit(weight, settings, sensitivity=sensitivity)[0].decode()
    for place in ((5, 7), (9, 1)):
        assert decoded[place] == weight[place].half().float()


def test_a_sensitivity_of_inputs_keeps_what_would_do_the_most_harm_as_a_zero():
    weight = torch.rand(32, 64, generator=torch.Generator().manual_seed(0)) + 0.1
    sensitivity = torch.ones(1, 64)
    sensitivity[0, 7] = 9.0
    settings = SparseConfig(bits=2, outliers=0.02)  # 40 weights, 4 of them for their sensitivity
    decoded = SparseCodec.fit(weight, settings, sensitivity=sensitivity)[0].decode()
    largest = (sensitivity * weight.square()).flatten().topk(4).indices
    assert set((largest % 64).tolist()) == {7}
    assert torch.equal(decoded.flatten()[largest], weight.flatten()[largest].half().float())


def test_outliers_apart_lower_the_error_and_both_beat_a_uniform_grid():
    weight = heavy_tailed()
    apart, together = (
        SparseCodec.fit(weight, SparseConfig(bits=3, outliers=part))[1].relative_distortion
        for part in (0.0045, 0)
    )
    grid = UniformCodec.fit(weight, UniformConfig(bits=3))[1].relative_distortion
    assert apart < together < grid


def test_bytes_are_codes_tables_and_compressed_rows():
    outliers = int(0.0045 * 64 * 512)
    expected = 64 * 512 * 3 // 8 + 64 * 8 * 2 + outliers * (2 + 2) + 65 * 4
    assert SparseCodec.tensor_bytes((64, 512), SparseConfig(bits=3)) == expected


@pytest.mark.parametrize(
    ("name", "at", "value", "message"),
    [
        ("columns", 0, 64, "beyond the 64"),
        ("columns", 3, -1, "beyond the 64"),
        ("row_starts", 0, 1, "do not divide"),
        ("row_starts", -1, 7, "do not divide"),
        ("row_starts", 5, 1000, "do not divide"),
    ],
)
def test_check_finds_outliers_out_of_place(name, at, value, message):
    codec, _ = SparseCodec.fit(heavy_tailed(), SparseConfig(outliers=0.01))
    codec.check()
    getattr(codec, name)[at] = value
    with pytest.raises(InputError, match=message):
        codec.check()


def test_a_value_beyond_fp16_is_refused():
    with pytest.raises(InputError, match="NaN or Inf"):
        SparseCodec.fit(heavy_tailed() * 1e6, SparseConfig())
