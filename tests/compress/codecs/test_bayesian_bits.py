import pytest
import torch

from compress.checkpoint import save_compressed
from compress.codecs.bayesian_bits import BayesianBitsCodec, BayesianBitsConfig
from compress.codecs.hard_concrete import open_chance, opened
from compress.learning import learning
from compress.replacement import replace
from compress.selection import compressible, weight_of
from tests.compress.models import roberta, text_input

CLOSED, OPEN = -20.0, 20.0


def matrix(rows=24, columns=32, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.1


def fit(weight, **settings):
    codec, _ = BayesianBitsCodec.fit(weight, BayesianBitsConfig(**settings))
    return codec


@torch.no_grad()
def set_gates(codec, bits, rows=()):
    """Opens the gates of up to `bits` bits, and closes those of some rows."""
    if codec.gates is not None:
        widths = [w for w in (4, 8, 16) if w <= codec.settings.bits]
        codec.gates.copy_(torch.tensor([OPEN if w <= bits else CLOSED for w in widths]))
    codec.keep.fill_(OPEN if bits else CLOSED)
    codec.keep[list(rows)] = CLOSED


@pytest.mark.parametrize("left", [0, 2, 4, 8])
def test_what_settles_are_the_bits_whose_gates_are_open_and_so_many_bytes(left):
    weight = matrix()
    codec = fit(weight, bits=8)
    whole = codec.stored_size()
    codec.learn(weight)
    set_gates(codec, left)
    with torch.no_grad():
        expected = codec.learned()
    codec.settle()
    assert codec.settings.bits == left
    torch.testing.assert_close(codec.decode(), expected, rtol=1e-3, atol=1e-5)
    assert codec.stored_size() == (24 * 32 * left // 8 + 24 * 2 if left else 0) <= whole
    assert codec.stored_size() == codec.tensor_bytes(codec.shape, codec.settings)


def test_a_gate_that_is_closed_closes_those_after_it():
    codec = fit(matrix(), bits=16)
    codec.learn(matrix())
    with torch.no_grad():
        codec.gates.copy_(torch.tensor([OPEN, CLOSED, OPEN]))
    codec.settle()
    assert codec.settings.bits == 4


def test_rows_that_are_pruned_are_zero_and_cost_next_to_nothing_in_the_file():
    weight = matrix(64, 256)
    sizes = []
    for rows in ((), range(16, 64)):
        codec = fit(weight, bits=8)
        codec.learn(weight)
        set_gates(codec, 8, rows)
        codec.settle()
        assert not codec.decode()[list(rows)].any() and codec.decode()[:16].any()
        stream = codec.coded_codes()
        sizes.append(codec.packed_bytes if stream is None else len(stream))
    assert sizes[1] < 0.4 * sizes[0]


def test_a_dearer_prior_leaves_fewer_bytes_and_more_error():
    """Two matrices: the errors of one count a hundred times as much, and it keeps more bits."""

    def trained(prior):
        found = []
        for worth in (0.1, 10.0):
            weight = matrix(32, 64)
            codec = fit(weight, bits=8, prior=prior)
            codec.learn(weight)
            torch.manual_seed(0)
            groups = [
                {"params": [p], "lr": 1e-3 * (1 if name == "latent" else codec.rate(name))}
                for name, p in codec.named_parameters()
            ]
            optimizer = torch.optim.Adam(groups)
            for _ in range(150):
                loss = worth * (codec.learned() - weight).square().mean() + codec.penalty()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            codec.settle()
            error = (codec.decode() - weight).square().mean().item()
            found.append((codec.stored_size(), error, codec.settings.bits))
        return found

    free, cheap, dear = (trained(prior) for prior in (0.0, 0.5, 1000.0))
    assert [one[2] for one in free] == [8, 8] and [one[2] for one in dear] == [0, 0]
    assert free[0][0] > cheap[0][0] > dear[0][0]
    assert free[0][1] < cheap[0][1] < dear[0][1]
    assert cheap[0][2] < cheap[1][2]


def test_the_penalty_is_the_price_of_the_expected_bytes():
    codec = fit(matrix(), bits=8, prior=3.0)
    codec.learn(matrix())
    for bits in (0, 2, 4, 8):
        set_gates(codec, bits)
        assert codec.penalty().item() == pytest.approx(3 * 24 * 32 * bits / 8e6, abs=1e-9)


def test_gates_are_open_as_often_as_their_chance_says():
    torch.manual_seed(0)
    logits = torch.linspace(-3, 3, 7)[:, None].expand(7, 4000).clone().requires_grad_()
    share = (opened(logits) > 0).float().mean(1)
    torch.testing.assert_close(share, open_chance(logits[:, 0]).detach(), atol=0.03, rtol=0)
    with torch.no_grad():
        assert set(opened(logits).unique().tolist()) == {0.0, 1.0}


def test_a_model_of_many_widths_comes_back_to_the_last_bit_and_is_smaller(tmp_path):
    torch.manual_seed(0)
    model, settings = roberta().eval(), BayesianBitsConfig(bits=8)
    dense = {}
    for ref in compressible(model):
        dense[ref.name] = weight_of(model, ref).detach()
        replace(model, ref, BayesianBitsCodec.fit(dense[ref.name], settings)[0])
    whole = save_compressed(model, tmp_path / "whole") / "model.safetensors"
    with learning(model, dense):
        for i, name in enumerate(sorted(dense)):
            set_gates(model.get_submodule(name).codec, (0, 2, 4, 8)[i % 4])
    folder = save_compressed(model, tmp_path / "settled")
    assert (folder / "model.safetensors").stat().st_size < 0.6 * whole.stat().st_size
    read = type(model).from_pretrained(folder).eval()
    with torch.no_grad():
        assert torch.equal(read(**text_input()).logits, model(**text_input()).logits)
    bits = [read.get_submodule(name).codec.settings.bits for name in sorted(dense)]
    assert bits[:4] == [0, 2, 4, 8]
