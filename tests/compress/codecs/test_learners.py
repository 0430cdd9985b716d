"""What holds for every method that learns while its group is recovered."""

import copy

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from compress.codecs import codec_class
from compress.config import RecoveryConfig, codec_config

LEARNERS = [
    ("product", {"block_size": 4, "codebook_size": 8, "row_scale": True}),
    ("bayesian_bits", {"bits": 4}),
    ("bayesian_bits", {"bits": 16, "per": "tensor", "prune": "tensor"}),
    ("dkm", {"codebook_size": 8}),
    ("dkm", {"block_size": 4, "codebook_size": 8, "row_scale": True}),
    ("lr2vq", {"block_size": 4, "codebook_size": 8, "dimension": 3}),
    ("uniform", {"bits": 4, "qat": True}),
    ("uniform", {"bits": 3, "qat": True, "per": "tensor", "symmetric": True}),
]
each_learner = pytest.mark.parametrize(("method", "settings"), LEARNERS)
RECOVERY = RecoveryConfig(reassign_steps=1)


def fitted(method, settings, shape=(24, 16)):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.1
    return weight, codec_class(method).fit(weight, codec_config(method, settings))[0]


def moved(codec, amount=0.05):
    """The latent weight as after some steps."""
    with torch.no_grad():
        noise = torch.randn(codec.latent.shape, generator=torch.Generator().manual_seed(1))
        codec.latent += amount * noise
    codec.refresh()


@each_learner
@pytest.mark.parametrize("shape", [(24, 16), (16, 4, 3, 3)])
def test_rows_are_those_of_the_weight_and_the_latent_weight_learns(method, settings, shape):
    weight, codec = fitted(method, settings, shape)
    assert codec.learns(RECOVERY)
    codec.learn(weight)
    moved(codec)
    twin = copy.deepcopy(codec)  # a step may move centroids
    torch.manual_seed(0)
    learned = codec.learned()
    assert learned.shape == shape
    rows = torch.tensor([0, shape[0] - 1, 1])
    torch.manual_seed(0)
    torch.testing.assert_close(twin.learned_rows(rows), learned.flatten(1)[rows])
    (learned - 2 * weight).square().sum().backward()
    assert codec.latent.grad.abs().sum() > 0
    for name, parameter in codec.named_parameters():
        assert not parameter.requires_grad or parameter.grad.isfinite().all(), name


@each_learner
def test_what_is_evaluated_while_it_learns_is_what_settles(method, settings):
    weight, codec = fitted(method, settings)
    before = codec.state_dict().keys()
    codec.learn(weight)
    moved(codec)
    with torch.no_grad():
        expected = codec.learned()
    codec.settle()
    codec.round_stored()
    codec.check()
    torch.testing.assert_close(codec.decode(), expected, rtol=2e-3, atol=1e-4)
    assert codec.latent is None and codec.state_dict().keys() == before
    assert codec.stored_size() <= codec.tensor_bytes(codec.shape, codec_config(method, settings))


@each_learner
def test_learning_reaches_another_weight_sooner_than_the_float_parameters_alone(method, settings):
    def left(learn):
        weight, codec = fitted(method, settings)
        target, own = weight.roll(1, 0), {"latent": 5e-3, "gates": 0.5, "keep": 0.5}
        if learn:
            codec.learn(weight)
        groups = [
            {"params": [p], "lr": own.get(name) or 5e-3 * codec.rate(name)}
            for name, p in codec.named_parameters()
            if p.requires_grad
        ]
        optimizer = torch.optim.Adam(groups)
        torch.manual_seed(0)
        for step in range(100):
            error = (codec.learned() if learn else codec.decode()) - target
            optimizer.zero_grad()
            error.square().mean().backward()
            optimizer.step()
            if learn and step % 10 == 9:
                codec.refresh()
        if learn:
            codec.settle()
        return (codec.decode() - target).square().mean().item()

    assert left(True) < 0.85 * left(False)


@each_learner
def test_what_the_plan_counts_is_about_what_autograd_keeps(method, settings):
    shape = (256, 128)
    weight, codec = fitted(method, settings, shape)
    codec.learn(weight)
    kept, alive = {}, []

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        alive.append(tensor)  # so that no address is used twice
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        out = codec.learned()
    for known in (codec.latent, out):
        kept.pop(known.untyped_storage().data_ptr(), None)
    expected = codec.learning_memory(shape, codec.settings)
    if expected == 0:
        assert sum(kept.values()) < 6 * weight.numel()
    else:
        assert 0.5 < sum(kept.values()) / expected < 1.3


def test_most_settings_learn_nothing_but_floats():
    _weight, codec = fitted("uniform", {})
    assert not codec.learns(RECOVERY) and codec.penalty() is None
    assert not fitted("product", LEARNERS[0][1])[1].learns(RecoveryConfig())
