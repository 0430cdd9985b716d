"""Whole neurons: what stays, what is added for what goes, and which layers belong together."""

import json

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from compress.allocation.curves import measure
from compress.checkpoint import save_compressed, stored_bytes
from compress.codecs.neuron_settings import NeuronsConfig
from compress.codecs.neurons import ROWS, NeuronsCodec
from compress.errors import InputError
from compress.layers import CompressedLinear
from compress.replacement import replace
from compress.selection import compressible, weight_of
from tests.compress.models import make


def block(seed=0, size=64):
    """A feed-forward block with its inputs, and the statistics of its neurons but for those of
    classes."""
    draw = torch.Generator().manual_seed(seed)
    first, second = torch.randn(size, 16, generator=draw), torch.randn(16, size, generator=draw)
    bias = torch.randn(size, generator=draw)
    x = torch.randn(300, 16, generator=draw)
    hidden = torch.nn.functional.gelu(x @ first.T + bias)
    often = (hidden > 0).double().mean(0).clamp(1e-9, 1 - 1e-9)
    entropy = -(often * often.log2() + (1 - often) * (1 - often).log2())
    zero = torch.zeros(size)
    statistics = torch.stack([hidden.mean(0), entropy.float(), zero, zero, second.norm(dim=0)])
    return first, bias, second, x, statistics


def outputs(first, bias, second, x, statistics, **settings):
    """Of the block with its layers compressed so."""
    config = NeuronsConfig(**settings)
    one, two = (
        CompressedLinear(NeuronsCodec.fit(w, config, statistics=statistics)[0], b)
        for w, b in ((first, torch.nn.Parameter(bias)), (second, None))
    )
    with torch.no_grad():
        return two(torch.nn.functional.gelu(one(x)))


@pytest.mark.parametrize("importance", ["entropy", "norm"])
@pytest.mark.parametrize("keep", [0.25, 0.75])
def test_bias_balancing_beats_plain_pruning(keep, importance):
    for seed in range(3):
        first, bias, second, x, _ = block(seed)
        whole = torch.nn.functional.gelu(x @ first.T + bias) @ second.T
        settings = {"keep": keep, "importance": importance}
        plain, balanced = (
            (outputs(*block(seed), balance=b, **settings) - whole).square().sum()
            for b in (False, True)
        )
        assert balanced < 0.9 * plain


def test_the_most_important_neurons_stay_as_they_are_in_both_layers():
    first, _, second, _, statistics = block()
    for importance in ("entropy", "norm"):
        config = NeuronsConfig(keep=0.5, importance=importance)
        one, two = (NeuronsCodec.fit(w, config, statistics=statistics)[0] for w in (first, second))
        assert torch.equal(one.neurons, two.neurons) and len(one.neurons) == 32
        order = statistics[ROWS.index(importance)].argsort(descending=True, stable=True)
        stays = order[:32].sort().values
        assert torch.equal(one.neurons.long(), stays)
        goes = torch.tensor(sorted(set(range(64)) - set(stays.tolist())))
        assert not one.decode()[goes].any() and not two.decode()[:, goes].any()
        torch.testing.assert_close(one.decode()[stays], first[stays].half().float())
        torch.testing.assert_close(two.decode()[:, stays], second[:, stays].half().float())
        shift = second[:, goes] @ statistics[0, goes]
        torch.testing.assert_close(two.shift, shift, rtol=1e-3, atol=1e-3)
        assert one.shift is None


def test_half_the_neurons_are_half_the_bytes():
    shapes, half = ((1536, 384), (384, 1536)), NeuronsConfig(keep=0.5)
    sizes = [NeuronsCodec.tensor_bytes(shape, half) for shape in shapes]
    assert sum(sizes) == 2 * (384 * 768 * 2 + 768 * 2) + 384 * 2
    coded = NeuronsConfig(keep=0.5, stored={"method": "uniform", "bits": 4})
    assert NeuronsCodec.tensor_bytes(shapes[0], coded) < 0.27 * sizes[0]


@pytest.mark.parametrize(
    "stored",
    [{"method": "product", "block_size": 4, "codebook_size": 8}, {"method": "uniform", "bits": 4}],
)
def test_what_stays_may_be_stored_by_another_method(stored):
    from compress.codecs import codec_class

    first, _, second, _, statistics = block()
    config = NeuronsConfig(keep=0.5, stored=stored)
    for weight, by_neuron in ((first, 0), (second, 1)):
        codec, report = NeuronsCodec.fit(weight, config, seed=3, statistics=statistics)
        part = weight.index_select(by_neuron, codec.neurons.long())
        alone, _ = codec_class(stored["method"]).fit(part, config.part, seed=3)
        kept = codec.decode().index_select(by_neuron, codec.neurons.long())
        assert torch.equal(kept, alone.decode())
        assert report.relative_distortion < 0.9


LAYERS = {
    "a.up": (64, 16),
    "a.gate": (64, 16),
    "a.down": (16, 64),
    "b.in": (32, 8),
    "b.out": (8, 32),
}


def test_codes_of_what_stays_are_coded_on_disk_and_come_back(tmp_path):
    model, inputs = make("bert")
    stored = {"method": "product", "block_size": 2, "codebook_size": 10}  # 3.2 of 4 bits
    config, coded = NeuronsConfig(keep=0.75, stored=stored), 0
    for ref in compressible(model):
        if "intermediate" in ref.name or ref.shape == (32, 64):
            replace(model, ref, NeuronsCodec.fit(weight_of(model, ref), config)[0])
    save_compressed(model, tmp_path / "m")
    entries = json.loads((tmp_path / "m/config.json").read_text())["quantization_config"]["layers"]
    tensors = load_file(tmp_path / "m/model.safetensors")
    for entry in entries:
        packed = model.get_submodule(entry["name"]).codec.part.packed_bytes
        codes = tensors[f"{entry['name']}.codec.part.codes"]
        assert len(codes) == entry.get("coded", packed)
        coded += "coded" in entry
    assert len(entries) == 4 and coded > 0
    assert stored_bytes(model, "float16") == (tmp_path / "m/model.safetensors").stat().st_size
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m").eval()
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_a_block_is_a_layer_that_reads_and_those_before_it_that_write():
    assert NeuronsCodec.ties(LAYERS) == [["a.up", "a.gate", "a.down"], ["b.in", "b.out"]]
    assert NeuronsCodec.ties({}) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a.down": None}, r"b\.out \(8, 32\): no layer of the group"),
        ({"b.out": None}, r"b\.in: no layer of the group reads"),
        ({"a.gate": (32, 16)}, r"a\.down \(16, 64\): no layer of the group"),
        ({"a.gate": (16, 16)}, r"a\.gate \(16, 16\): no layer"),
        ({"a.up": (64, 4, 3, 3)}, r"a\.up is no linear layer"),
    ],
)
def test_layers_without_their_partner_are_named(change, message):
    layers = {name: shape for name, shape in (LAYERS | change).items() if shape}
    with pytest.raises(InputError, match=message):
        NeuronsCodec.ties(layers)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"bits": 4}, "give the `method`"),
        ({"method": "uniform", "bit": 4}, "bit: unknown key; uniform has bits"),
        ({"method": "ternary"}, "unknown method `ternary`"),
        ({"method": "neurons"}, "needs statistics of its own"),
    ],
)
def test_a_method_that_cannot_store_what_stays_is_refused(stored, message):
    with pytest.raises(ValidationError, match=message):
        NeuronsConfig(stored=stored)


def test_what_was_read_and_is_no_list_of_neurons_is_refused():
    first, _, second, _, statistics = block()
    for bad in ([0, 0], [1, 0], [62, 64], [-1, 3]):
        codec, _ = NeuronsCodec.fit(first, NeuronsConfig(keep=0.5), statistics=statistics)
        codec.neurons[-2:] = torch.tensor(bad)
        with pytest.raises(InputError, match="no ascending list of some of the 64"):
            codec.check()
    for wrong in (statistics[:, :-1], statistics[:-1], statistics * torch.nan):
        with pytest.raises(InputError, match="none of 64 neurons"):
            NeuronsCodec.fit(second, NeuronsConfig(), statistics=wrong)


def test_a_budget_tries_what_stays_with_all_that_its_method_offers_for_both_layers():
    nominal = NeuronsConfig(stored={"method": "product", "block_size": 4, "codebook_size": 64})
    draw = torch.Generator().manual_seed(0)
    points = []
    for shape in ((512, 128), (128, 512)):
        candidates = NeuronsCodec.candidates(shape, nominal)
        found = measure(torch.randn(shape, generator=draw), candidates)["points"]
        points.append({str(point["settings"]): point for point in found})
    both = points[0].keys() & points[1].keys()
    assert len(both) > 0.8 * len(points[0])
    for keep in (0.125, 0.875):
        own = [points[0][key] for key in both if points[0][key]["settings"]["keep"] == keep]
        sizes = [point["bytes"] for point in own]
        assert max(sizes) > 3 * min(sizes)
        finest, coarsest = (
            pick(own, key=lambda p: p["bytes"])["distortion"] for pick in (max, min)
        )
        assert 1 - keep < finest < coarsest < 1


def test_the_expected_distortion_is_about_that_of_the_fit():
    weight = torch.randn(512, 128, generator=torch.Generator().manual_seed(0))
    stored = {"method": "product", "block_size": 4, "codebook_size": 64}
    for keep in (0.25, 0.75):
        settings = NeuronsConfig(keep=keep, stored=stored)
        right = NeuronsCodec.fit(weight, settings)[1].relative_distortion
        (expected,) = NeuronsCodec.expected_distortions(weight, [settings])
        assert expected == pytest.approx(right, abs=0.06)
