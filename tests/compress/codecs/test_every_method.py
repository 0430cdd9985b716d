"""What holds for every method there is: size, rows, gradients, files, whole models."""

import json
import subprocess
import sys

import pytest
import torch

from compress.checkpoint import save_compressed
from compress.codecs import codec_class, methods
from compress.config import codec_config
from compress.errors import InputError
from compress.layer_file import read_layer, write_layer
from compress.replacement import replace
from compress.selection import compressible, weight_of
from tests.compress.models import make

# Settings for weights as small as those of tests; every other method is tested with its defaults.
SMALL = {
    "adaround": [{"bits": 3}, {"bits": 4, "per": "tensor", "symmetric": True}],
    "bayesian_bits": [{}, {"bits": 4, "per": "tensor"}],
    "dkm": [{}, {"block_size": 2, "codebook_size": 8}],
    "lr2vq": [{"block_size": 4, "codebook_size": 16, "dimension": 3}],
    "lowrank": [{"rank": 8}, {"rank": 8, "p": 1}],
    "neurons": [{}, {"keep": 0.75, "stored": {"method": "uniform", "bits": 4}}],
    "subspace": [{"subspaces": 2, "dimension": 8}, {"subspaces": 3, "dimension": 6}],
    "residual": [{"block_size": 4, "codebook_size": 8}],
    "sparse": [{"bits": 3}, {"bits": 4, "outliers": 0.1}],
    "product": [{"block_size": 4, "codebook_size": 16, "row_scale": True}],
    "uniform": [
        {"bits": 3},
        {"bits": 4, "per": "tensor", "range": "minmax"},
        {"bits": 8, "symmetric": True, "range": "percentile"},
    ],
}
CASES = [(name, settings) for name in methods() for settings in SMALL.get(name, [{}])]
each_method = pytest.mark.parametrize(("method", "settings"), CASES)


def fitted(method, settings, shape=(24, 16), **options):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.1
    cls = codec_class(method)
    codec, report = cls.fit(weight, codec_config(method, settings), seed=3, **options)
    return weight, codec, report


@each_method
@pytest.mark.parametrize("shape", [(24, 16), (16, 4, 3, 3)])
def test_size_rows_and_distortion_are_what_they_are_said_to_be(method, settings, shape):
    weight, codec, report = fitted(method, settings, shape)
    decoded = codec.decode()
    assert decoded.shape == weight.shape
    rows = torch.tensor([[0, shape[0] - 1, 1], [1, 1, 2]])
    torch.testing.assert_close(codec.decode_rows(rows), decoded.flatten(1)[rows])
    measured = (weight - decoded).square().sum() / weight.square().sum()
    assert report.relative_distortion == pytest.approx(measured.item(), rel=1e-4)
    assert 0 <= report.relative_distortion < 0.5
    stored = [t.half() if t.is_floating_point() else t for t in codec.state_dict().values()]
    assert report.bytes == sum(t.numel() * t.element_size() for t in stored)
    assert report.bytes == type(codec).tensor_bytes(shape, codec.settings)
    assert json.loads(json.dumps(report.as_dict()))["bytes"] == report.bytes


@each_method
def test_floats_hold_what_fp16_stores_and_the_same_seed_gives_the_same_bytes(method, settings):
    _, codec, _ = fitted(method, settings)
    again = fitted(method, settings)[1].state_dict()
    for name, tensor in codec.state_dict().items():
        assert torch.equal(tensor, again[name])
        if tensor.is_floating_point():
            assert torch.equal(tensor, tensor.half().float())


@each_method
def test_the_number_of_threads_makes_no_difference(method, settings):
    threads, states = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            states.append(fitted(method, settings, (320, 128))[1].state_dict())
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@each_method
def test_candidates_under_a_budget_can_be_fitted_and_differ_in_bytes(method, settings):
    cls, nominal = codec_class(method), codec_config(method, settings)
    found = [c for c in cls.candidates((64, 48), nominal) if not cls.problems((64, 48), c)]
    if not found:
        pytest.skip("it has the size that its group names, and no other")
    sizes = {cls.tensor_bytes((64, 48), candidate) for candidate in found}
    assert len(sizes) > 2
    weight = torch.randn(64, 48, generator=torch.Generator().manual_seed(0))
    coarse = min(found, key=lambda c: cls.tensor_bytes((64, 48), c))
    fine = max(found, key=lambda c: cls.tensor_bytes((64, 48), c))
    expected = cls.expected_distortions(weight, [fine, coarse])
    assert 0 <= expected[0] < expected[1] < 1


@each_method
def test_gradients_reach_every_float_parameter(method, settings):
    weight, codec, _ = fitted(method, settings)
    codec = codec.double()

    def loss():
        return (codec.decode() - 2 * weight.double()).square().sum()

    loss().backward()
    assert list(codec.parameters())
    for parameter in codec.parameters():
        direction = parameter.grad / parameter.grad.norm()
        with torch.no_grad():  # finite difference along the gradient
            parameter += 1e-4 * direction
            higher = loss()
            parameter -= 2e-4 * direction
            lower = loss()
            parameter += 1e-4 * direction
        slope = (higher - lower).item() / 2e-4
        assert slope == pytest.approx(parameter.grad.norm().item(), rel=1e-2)


@each_method
def test_empty_on_meta_has_the_tensors_of_the_fitted_codec(method, settings):
    _, codec, _ = fitted(method, settings, (16, 4, 3, 3))
    with torch.device("meta"):
        empty = type(codec).empty((16, 4, 3, 3), codec.settings).state_dict()
    assert empty.keys() == codec.state_dict().keys()
    for name, tensor in codec.state_dict().items():
        assert (empty[name].shape, empty[name].dtype) == (tensor.shape, tensor.dtype)


@each_method
def test_a_layer_file_gives_the_same_weight_to_the_last_bit(tmp_path, method, settings):
    _, codec, _ = fitted(method, settings)
    read, _ = read_layer(write_layer(tmp_path / "layer", codec, {}))
    assert read.settings == codec.settings
    assert torch.equal(read.decode(), codec.decode())


@each_method
@pytest.mark.parametrize("name", ["roberta", "deberta-v2", "llama", "gpt2", "resnet"])
def test_a_model_comes_back_to_the_last_bit(tmp_path, method, settings, name):
    """Layers of all kinds, and heads that are tied to an embedding."""
    (model, inputs), done = make(name), 0
    config = codec_config(method, settings)
    for ref in compressible(model):
        if not codec_class(method).problems(ref.shape, config):
            weight = weight_of(model, ref)
            replace(model, ref, codec_class(method).fit(weight, config)[0])
            done += 1
    assert done > 1
    save_compressed(model, tmp_path / "model")
    read = type(model).from_pretrained(tmp_path / "model").eval()
    with torch.no_grad():
        assert torch.equal(read(**inputs).logits, model(**inputs).logits)


@each_method
@pytest.mark.parametrize("shape", [(1, 48), (40, 1), (40, 48)])
def test_a_sensitivity_lowers_the_weighted_distortion_and_both_are_reported(
    method, settings, shape
):
    sensitivity = torch.rand(shape, generator=torch.Generator().manual_seed(1)) ** 4
    _, plain, without = fitted(method, settings, (40, 48))
    weight, codec, report = fitted(method, settings, (40, 48), sensitivity=sensitivity)

    def weighted(codec):
        error = (sensitivity * (weight - codec.decode()).square()).sum()
        return (error / (sensitivity * weight.square()).sum()).item()

    assert without.weighted_distortion is None
    if codec.weighs:
        assert report.weighted_distortion == pytest.approx(weighted(codec), rel=1e-4)
    measured = (weight - codec.decode()).square().sum() / weight.square().sum()
    assert report.relative_distortion == pytest.approx(measured.item(), rel=1e-4)
    if not codec.weighs:
        assert report.weighted_distortion is None and weighted(codec) == weighted(plain)
    elif settings.get("range") in (None, "mse"):  # else there is nothing to choose
        # what a row has to itself (`sparse`: its values) gains nothing where the rows differ
        assert weighted(codec) <= weighted(plain) * (1.1 if shape[1] == 1 else 1.0)
    expanded = fitted(method, settings, (40, 48), sensitivity=sensitivity.expand(40, 48))[1]
    if shape[1] > 1:  # one sensitivity a row is computed in another order
        assert torch.equal(expanded.decode(), codec.decode())
    assert weighted(expanded) == pytest.approx(weighted(codec), rel=0.05)


@each_method
def test_a_sensitivity_that_cannot_be_one_is_refused(method, settings):
    if not codec_class(method).weighs:
        return
    for bad in (torch.ones(16), torch.ones(24, 15), -torch.ones(1, 16)):
        with pytest.raises(InputError, match="sensitivity"):
            fitted(method, settings, sensitivity=bad)


@each_method
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(method, settings, bad):
    weight = torch.randn(24, 16)
    weight[3, 3] = bad
    with pytest.raises(InputError, match="NaN or Inf"):
        codec_class(method).fit(weight, codec_config(method, settings))


@each_method
def test_a_weight_of_zeros_stays_zero(method, settings):
    cls = codec_class(method)
    codec, report = cls.fit(torch.zeros(24, 16), codec_config(method, settings))
    assert not codec.decode().any()
    assert report.relative_distortion == 0


def test_a_method_first_met_on_the_meta_device_works():
    """Its file is imported then and there, with whatever tensors it keeps."""
    program = """
import torch
from compress.codecs.registry import codec_class
with torch.device("meta"):
    uniform = codec_class("uniform")
uniform.fit(torch.randn(4, 8), uniform.Settings(bits=4))
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
