import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from compress.codecs.uniform import UniformCodec, UniformConfig
from compress.errors import InputError


def fit(weight, sensitivity=None, **settings):
    codec, _ = UniformCodec.fit(weight, UniformConfig(**settings), sensitivity=sensitivity)
    return codec


def error(codec, weight):
    return (codec.decode() - weight).double().square().sum().item()


def reference(weight, *, bits, per, symmetric):
    """The white paper's equations 4 to 10 in float64, the step rounded to fp16."""
    w = weight.double().numpy().reshape(len(weight) if per == "channel" else 1, -1)
    low, high = np.minimum(w.min(1), 0)[:, None], np.maximum(w.max(1), 0)[:, None]
    if symmetric:
        scale, zero = np.maximum(-low, high) / (2 ** (bits - 1) - 1), 0
        least, top = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    else:
        scale, least, top = (high - low) / (2**bits - 1), 0, 2**bits - 1
    scale = np.maximum(scale.astype(np.float16).astype(np.float64), 2.0**-24)
    if not symmetric:
        zero = np.clip(np.round(-low / scale), least, top)
    codes = np.clip(np.round(w / scale) + zero, least, top)
    return torch.from_numpy(((codes - zero) * scale).reshape(weight.shape)), scale


@limits(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    shift=st.floats(-3, 3),
    bits=st.integers(2, 8),
    per=st.sampled_from(["channel", "tensor"]),
    symmetric=st.booleans(),
)
def test_equals_a_float64_reference(seed, shift, bits, per, symmetric):
    weight = torch.randn(6, 32, generator=torch.Generator().manual_seed(seed)) + shift
    codec = fit(weight, bits=bits, per=per, symmetric=symmetric, range="minmax")
    expected, scale = reference(weight, bits=bits, per=per, symmetric=symmetric)
    off = (codec.decode().double() - expected).abs()
    on_a_tie = off > 1e-5 * expected.abs() + 1e-6  # float32 rounds the quotient to the other side
    assert bool((off <= 1.001 * torch.from_numpy(scale).expand(-1, 1).max()).all())
    assert on_a_tie.double().mean() < 0.01
    if not bool(on_a_tie.any()):
        torch.testing.assert_close(codec.decode().double(), expected, rtol=1e-5, atol=1e-6)


@limits(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), bits=st.integers(2, 8), symmetric=st.booleans())
def test_the_grid_search_is_never_worse_than_the_whole_range(seed, bits, symmetric):
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(seed)) ** 3
    same = {"bits": bits, "symmetric": symmetric}
    searched, whole = (fit(weight, range=name, **same) for name in ("mse", "minmax"))
    each = [(c.decode() - weight).double().square().sum(1) for c in (searched, whole)]
    assert bool((each[0] <= each[1]).all())
    if bits <= 3:
        assert error(searched, weight) < error(whole, weight)


def test_a_percentile_leaves_outliers_out_of_the_range():
    weight = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))
    weight[:, 0] = 100.0
    narrow, wide = (fit(weight, bits=4, range=name) for name in ("percentile", "minmax"))
    assert narrow.decode().max() < 5 < wide.decode().max()
    small = weight.abs() < 50
    spread = [(c.decode() - weight)[small].square().mean().item() for c in (narrow, wide)]
    assert spread[0] < 0.1 * spread[1]


@pytest.mark.parametrize("per", ["channel", "tensor"])
@pytest.mark.parametrize("columns", [48, 384])
def test_a_percentile_of_few_weights_lies_between_two_of_them(per, columns):
    weight = torch.randn(6, columns, generator=torch.Generator().manual_seed(0))
    codec = fit(weight, bits=8, per=per, range="percentile", percentile=99.0)
    rows = weight.double().numpy().reshape(len(codec.scale), -1)
    low, high = np.percentile(rows, [1.0, 99.0], axis=1)
    np.testing.assert_allclose(codec.scale.detach().numpy(), (high - low) / 255, rtol=1e-3)


def test_a_step_for_each_channel_serves_rows_of_different_size():
    weight = torch.randn(32, 64) * torch.logspace(-3, 0, 32)[:, None]
    assert error(fit(weight, bits=4), weight) < 0.9 * error(
        fit(weight, bits=4, per="tensor"), weight
    )


def test_the_search_listens_to_sensitivity():
    weight = torch.randn(8, 256, generator=torch.Generator().manual_seed(0)) ** 3
    sensitivity = torch.where(weight.abs() < 1, 1.0, 1e-4)

    def weighted(codec):
        return (sensitivity * (codec.decode() - weight).square()).sum().item()

    assert weighted(fit(weight, sensitivity, bits=3)) < 0.9 * weighted(fit(weight, bits=3))


def test_int4_takes_half_a_byte():
    size = UniformCodec.tensor_bytes((32, 64), UniformConfig(bits=4, symmetric=True))
    assert size == 32 * 64 // 2 + 32 * 2
    assert UniformCodec.tensor_bytes((32, 64), UniformConfig(bits=4)) == size + 32
    codec = fit(torch.randn(32, 64), bits=4)
    assert codec.codes.numel() == 32 * 64 // 2
    assert codec._indices().dtype == torch.uint8  # unpacked, too, it is no larger than int8


def test_a_step_beyond_fp16_is_refused():
    with pytest.raises(InputError, match="NaN or Inf"):
        fit(torch.randn(4, 8) * 1e8, bits=4, range="minmax")


def test_quantization_aware_training_is_noise_on_every_weight():
    from compress.noise import BlockNoise

    weight = torch.randn(16, 16, requires_grad=True)
    noisy = BlockNoise("int4", rate=1.0, block_size=1)(weight)
    assert len(noisy.unique()) <= 16
    noisy.sum().backward()
    assert torch.equal(weight.grad, torch.ones(16, 16))  # straight through


@limits(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    bits=st.integers(2, 8),
    per=st.sampled_from(["channel", "tensor"]),
    symmetric=st.booleans(),
    how=st.sampled_from(["minmax", "mse", "percentile"]),
)
def test_training_sees_the_grid_and_gradients_are_those_of_a_float64_reference(
    seed, bits, per, symmetric, how
):
    """Of the white paper's section 4.1 for weights, and of LSQ's equation 3 for the step."""
    draw = torch.Generator().manual_seed(seed)
    weight, grad = torch.randn(6, 32, generator=draw), torch.randn(6, 32, generator=draw).double()
    settings = {"bits": bits, "per": per, "symmetric": symmetric, "qat": True}
    codec = fit(weight, range=how, percentile=90, **settings)
    stored = codec.decode().detach()
    codec.learn(weight)
    torch.testing.assert_close(codec.learned(), stored)
    codec.double()
    (codec.learned() * grad).sum().backward()
    rows, step = weight.double().view(len(codec.scale), -1), codec.scale.detach()[:, None]
    zero = codec.size // 2 if symmetric else codec.zero_point.double()[:, None]
    ratio, low, top = rows / step, -zero, codec.size - 1 - zero
    codes = torch.round(ratio)
    inside = (codes >= low) & (codes <= top)
    torch.testing.assert_close(codec.latent.grad, (grad.view_as(rows) * inside).view(6, 32))
    slope = torch.where(inside, codes - ratio, torch.where(codes < low, low, top).double())
    torch.testing.assert_close(codec.scale.grad, (grad.view_as(rows) * slope).sum(1))


def test_a_step_learns_in_proportion_to_its_size():
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    assert fit(0.01 * weight).rate("scale") == pytest.approx(0.01 * fit(weight).rate("scale"), 0.01)
