import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from compress.config import NoiseBlocks, NoiseConfig
from compress.errors import InputError
from compress.noise import BlockNoise, fake_quantize, quant_noise
from compress.stack import share_layers

FUNCTIONS = ["zero", "mean", "codebook", "int8", "int4"]
SETTINGS = NoiseBlocks(block_size=4, codebook_size=16)


class Network(nn.Module):
    """One layer of each kind, in a row."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 16, padding_idx=0)
        self.linear = nn.Linear(16, 12)
        self.conv = nn.Conv2d(1, 8, (2, 2))

    def forward(self, ids):
        hidden = self.linear(self.embedding(ids))  # (batch, tokens, 12)
        return self.conv(hidden[:, None]).sum()


LAYERS = {name: SETTINGS for name in ("embedding", "linear", "conv")}


def network():
    torch.manual_seed(0)
    return Network(), torch.randint(1, 50, (4, 9))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_hundred_passes_leave_every_byte_of_the_weights(function):
    model, ids = network()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    names = list(model.state_dict())
    with quant_noise(model, LAYERS, NoiseConfig(function=function, rate=0.5)):
        for _ in range(100):
            model(ids)
        assert list(model.state_dict()) == names
        assert not any("weight" in module.__dict__ for module in model.modules())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_train_mode_is_noisy_and_eval_mode_is_not(function):
    model, ids = network()
    clean = model(ids)
    with quant_noise(model, LAYERS, NoiseConfig(function=function, rate=0.5)):
        assert not torch.equal(model(ids), clean)
        assert torch.equal(model.eval()(ids), clean)
    assert torch.equal(model.train()(ids), clean)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_gradient_passes_straight_through(function):
    model, ids = network()
    with quant_noise(model, LAYERS, NoiseConfig(function=function, rate=0.3)):
        model(ids).backward()
    used = torch.unique(ids)
    assert (model.linear.weight.grad != 0).all()
    assert (model.embedding.weight.grad[used] != 0).any(dim=1).all()
    unused = torch.ones(50, dtype=torch.bool).index_fill(0, used, False)
    assert (model.embedding.weight.grad[unused] == 0).all()


def test_blocks_of_a_conv1d_are_those_of_the_linear_layer_that_it_computes():
    torch.manual_seed(0)
    linear, conv1d = nn.Linear(16, 12), Conv1D(12, 16)
    conv1d.weight.data, conv1d.bias = linear.weight.detach().T.clone(), linear.bias
    model, x = nn.ModuleDict({"linear": linear, "conv1d": conv1d}), torch.randn(5, 16)
    layers = {name: SETTINGS for name in model}
    clean = linear(x)
    with quant_noise(model, layers, NoiseConfig(function="mean", rate=1.0)):
        noisy = linear(x)
        torch.testing.assert_close(conv1d(x), noisy)
        assert not torch.allclose(noisy, clean)


def test_padding_row_gets_no_gradient():
    model, _ = network()
    with quant_noise(model, LAYERS, NoiseConfig(function="zero", rate=0.3)):
        model(torch.tensor([[0, 0, 3, 4]])).backward()
    assert (model.embedding.weight.grad[0] == 0).all()


def test_rate_is_the_share_of_whole_blocks():
    torch.manual_seed(0)
    weight = torch.randn(400, 80) + 10
    noisy = BlockNoise("zero", rate=0.2, block_size=8)(weight).reshape(-1, 8)
    zeroed = (noisy == 0).all(dim=1)
    assert ((noisy != 0).all(dim=1) | zeroed).all()
    assert zeroed.float().mean().item() == pytest.approx(0.2, abs=0.03)


def test_the_rate_grows_in_the_warmup_and_stays_then():
    model, shares = nn.Linear(8, 2000, bias=False), []  # a block is a row
    config = NoiseConfig(function="zero", rate=0.5, warmup_fraction=0.4)
    torch.manual_seed(0)
    with quant_noise(model, {"": NoiseBlocks()}, config) as noise:
        for done in (0.0, 0.1, 0.2, 0.4, 0.9):
            noise.advance(done)
            shares.append((model(torch.ones(1, 8)) == 0).float().mean().item())
    assert shares[0] == 0.0
    assert shares[1:] == pytest.approx([0.125, 0.25, 0.5, 0.5], abs=0.04)


def test_mean_function():
    weight = torch.arange(16.0).reshape(2, 8)
    noisy = BlockNoise("mean", rate=0.999999, block_size=4)(weight)
    assert torch.equal(
        noisy, weight.reshape(-1, 4).mean(1, keepdim=True).expand(4, 4).reshape(2, 8)
    )


def test_codebook_function_gives_the_nearest_centroid():
    torch.manual_seed(0)
    weight = torch.randn(32, 16)
    noise = BlockNoise("codebook", rate=0.999999, block_size=4, codebook_size=8)
    noise.refresh(weight)
    noisy = noise(weight).reshape(-1, 4)
    nearest = torch.cdist(weight.reshape(-1, 4).double(), noise.codebook.double()).argmin(1)
    assert torch.equal(noisy, noise.codebook[nearest])


@given(bits=st.sampled_from([4, 8]), seed=st.integers(0, 99), scale=st.floats(1e-3, 1e3))
def test_scalar_quantization_is_within_half_a_step(bits, seed, scale):
    weight = torch.randn(64, generator=torch.Generator().manual_seed(seed)) * scale
    step = (weight.max() - weight.min()) / (2**bits - 1)
    rounded = fake_quantize(weight, *weight.aminmax(), bits=bits)
    assert (rounded - weight).abs().max() <= step * 0.501
    assert len(rounded.unique()) <= 2**bits


def test_the_grid_of_an_embedding_is_that_of_all_its_rows():
    torch.manual_seed(0)
    embedding = nn.Embedding(40, 16)
    with torch.no_grad():
        embedding.weight[39] = 50.0  # not looked up
    config = NoiseConfig(function="int4", rate=0.999999)
    with quant_noise(embedding, {"": SETTINGS}, config):
        noisy = embedding(torch.arange(20))
    low = embedding.weight.min()
    expected = fake_quantize(embedding.weight[:20], low, torch.tensor(50.0), bits=4)
    torch.testing.assert_close(noisy, expected)


def test_constant_weight_stays_finite():
    weight = torch.full((8,), 3.0)
    assert torch.equal(fake_quantize(weight, *weight.aminmax(), bits=8), weight)


def test_exception_in_forward_leaves_no_shadow():
    model, _ = network()
    with (
        quant_noise(model, LAYERS, NoiseConfig(function="zero", rate=0.5)),
        pytest.raises(RuntimeError),
    ):
        model.linear(torch.randn(3, 99))
    assert isinstance(model.linear.weight, nn.Parameter)


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))

    def forward(self, x):
        for layer in self.layer:
            x = layer(x)
        return x


def test_layerdrop_passes_the_input_through():
    torch.manual_seed(0)
    model, x = Stack(), torch.randn(2, 6)
    config = NoiseConfig(function="none", layerdrop=0.999)
    with quant_noise(model, {}, config):
        assert torch.equal(model(x), x)
        assert not torch.equal(model.eval()(x), x)


def test_same_seed_same_noise():
    model, ids = network()
    with quant_noise(model, LAYERS, NoiseConfig(function="codebook", rate=0.5), seed=3) as noise:
        noise.refresh()
        torch.manual_seed(5)
        first = model(ids)
        torch.manual_seed(5)
        assert torch.equal(model(ids), first)


def test_layers_that_share_their_weights_are_dropped_together():
    torch.manual_seed(0)
    model, x = Stack(), torch.randn(2, 6)
    share_layers(model, 2)
    first, second = model.layer[0], model.layer[2]
    ways = {
        "both": second(second(first(first(x)))),
        "first": first(first(x)),
        "second": second(second(x)),
        "none": x,
    }
    seen = set()
    with quant_noise(model, {}, NoiseConfig(function="none", layerdrop=0.5)):
        for _ in range(40):
            y = model(x)
            seen.add(next(name for name, z in ways.items() if torch.equal(y, z)))
    assert seen == ways.keys()


def test_copies_of_a_weight_have_one_codebook_and_noise_of_their_own():
    torch.manual_seed(0)
    model, x = Stack(), torch.randn(2, 6)
    share_layers(model, 4)
    blocks = NoiseBlocks(block_size=3, codebook_size=2)
    config = NoiseConfig(function="codebook", rate=0.5)
    names = {f"layer.{i}": blocks for i in range(4)}
    given = []
    with quant_noise(model, names, config) as noise:
        for layer in model.layer:  # the weight as it is used
            layer.register_forward_pre_hook(lambda m, _: given.append(m.weight.detach()))
        noise.refresh()
        model(x)
    assert len({tuple(weight.flatten().tolist()) for weight in given}) > 1
    noisy = {tuple(block.tolist()) for weight in given for block in weight.reshape(-1, 3)}
    clean = {tuple(block.tolist()) for block in model.layer[0].weight.detach().reshape(-1, 3)}
    assert 1 <= len(noisy - clean) <= 2  # the centroids


def test_no_layers_to_drop_are_refused():
    with (
        pytest.raises(InputError, match="no stack of layers"),
        quant_noise(nn.Linear(3, 3), {}, NoiseConfig(layerdrop=0.2)),
    ):
        pass
