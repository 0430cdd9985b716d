"""A budget in bytes against the real file: never over it, close below it, the same every time."""

import math
import random

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, RobertaConfig

from compress.allocation import solver
from compress.allocation.allocate import allocate, extremes, limit_of
from compress.allocation.candidates import layer_candidates
from compress.allocation.curves import undominated
from compress.allocation.sizes import FileSizes
from compress.checkpoint import save_compressed
from compress.codecs import codec_class
from compress.config import BudgetConfig, QuantizeConfig
from compress.errors import InputError
from compress.replacement import replace
from compress.selection import select, weight_of

GROUPS = [
    {"name": "ffn", "layers": ["**.intermediate.dense", "**.layer.*.output.dense"]},
    {"name": "embeddings", "layers": ["**.word_embeddings", "**.position_embeddings"]},
    {"name": "attention", "layers": ["**.attention.**"], "block_size": 4},
]


def quantize(**changes):
    return QuantizeConfig.model_validate({"groups": GROUPS, "codebook_size": 64} | changes)


def synthetic(layer, config, seed):
    """A curve of the right sizes whose distortion falls as codebooks do: 2^(-2 bits)."""
    shape, draw = layer.ref.shape, random.Random(f"{seed}{layer.ref.name}")
    points = []
    for settings in layer_candidates(shape, layer.settings, config, layer.group):
        size = codec_class(settings.method).tensor_bytes(shape, settings)
        distortion = 2 ** (-2 * 8 * size / math.prod(shape)) * draw.uniform(0.9, 1.1)
        point = {"settings": settings.model_dump(mode="json"), "bytes": size}
        points.append(point | {"distortion": distortion})
    return {"energy": draw.uniform(1, 100) * math.prod(shape), "points": undominated(points)}


class Model:
    """Sizes and curves of a model without weights."""

    def __init__(self, model_config, rest="float16"):
        self.model_config, self.config = model_config, quantize(rest=rest)
        with torch.device("meta"):
            self.model = AutoModelForSequenceClassification.from_config(model_config)
        self.layers = select(self.model, self.config).layers
        self.sizes = FileSizes(self.model, self.layers, rest)
        self.curves = {x.ref.name: synthetic(x, self.config, 0) for x in self.layers}
        draw = random.Random(1)
        self.sensitivity = {}
        for layer in self.layers:
            s, name = draw.lognormvariate(0, 2), layer.ref.name
            self.sensitivity[name] = s, s * self.curves[name]["energy"]

    def allocate(self, budget):
        return allocate(self.sizes, self.layers, self.curves, self.sensitivity, budget)


def size_range(model):
    return [model.sizes.exact(chosen) for chosen in extremes(model.layers, model.config)]


SMALL = BertConfig(
    vocab_size=3000, hidden_size=64, num_hidden_layers=3, num_attention_heads=4,
    intermediate_size=256, max_position_embeddings=128,
)  # fmt: skip


@pytest.fixture(scope="module")
def small():
    return Model(SMALL)


@pytest.fixture(scope="module")
def roberta():
    return Model(RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1))


def test_sizes_are_those_of_a_model_with_the_layers_in_it(small):
    """FileSizes knows no weights; save_compressed writes them (test_plan holds it to the byte)."""
    from compress.stored import stored_bytes

    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(SMALL)
    found = small.allocate(BudgetConfig(ratio=14))
    for layer in small.layers:
        settings = found.settings[layer.ref.name]
        with torch.device("meta"):
            codec = codec_class(settings.method).empty(layer.ref.shape, settings)
        replace(model, layer.ref, codec)
    assert found.bytes == stored_bytes(model, "float16")
    parts = sum(small.sizes.of(name, s) for name, s in found.settings.items())
    assert 0 <= small.sizes.rest + parts - found.bytes <= small.sizes.slack


def test_never_over_200_random_budgets_and_within_2_percent_below(small, monkeypatch):
    monkeypatch.setattr(solver, "UNITS", 2048)  # coarse and fast; nothing here depends on it
    least, largest = size_range(small)
    draw, closest = random.Random(0), []
    for _ in range(200):
        limit = draw.uniform(least, largest)
        found = small.allocate(BudgetConfig(megabytes=limit / 1e6))
        assert found.limit == int(limit / 1e6 * 1e6)
        assert found.bytes == small.sizes.exact(found.settings) <= found.limit
        assert 0 <= found.gap <= 1
        if limit < 0.5 * largest:  # 4, 6 or 8 bits for all of a large layer are too few choices
            closest.append(found.bytes / found.limit)
    assert len(closest) > 50
    assert min(closest) > 0.98


def test_roberta_fills_its_budget_and_is_near_the_best(roberta):
    assert len(roberta.layers) == 74
    for ratio in (12, 20, 28):
        found = roberta.allocate(BudgetConfig(ratio=ratio))
        assert found.bytes <= found.limit == int(roberta.sizes.dense / ratio)
        assert found.bytes > 0.999 * found.limit
        assert found.gap < 0.005


def test_a_sensitive_layer_gets_more_bytes(small):
    name = "bert.encoder.layer.1.attention.self.query"
    before = {x.name: x.bytes for x in small.allocate(BudgetConfig(ratio=14)).layers}
    more = small.sensitivity | {name: (1e6, 1e9)}
    found = allocate(small.sizes, small.layers, small.curves, more, BudgetConfig(ratio=14))
    after = {x.name: x.bytes for x in found.layers}
    assert after[name] > before[name]
    assert after[name] == max(p["bytes"] for p in small.curves[name]["points"])


def test_more_bytes_never_do_more_damage(small):
    damages = [small.allocate(BudgetConfig(ratio=r)).damage for r in (18, 16, 14, 12, 10, 8)]
    assert damages == sorted(damages, reverse=True)
    assert small.allocate(BudgetConfig(ratio=14)) == small.allocate(BudgetConfig(ratio=14))


def test_too_small_a_budget_names_the_least_and_the_largest(small):
    ends = [
        {
            n: codec_class(p["settings"]["method"]).Settings(**p["settings"])
            for n, p in ((n, c["points"][i]) for n, c in small.curves.items())
        }
        for i in (0, -1)
    ]
    least, largest = map(small.sizes.exact, ends)
    with pytest.raises(InputError, match=f"1,000 bytes are too few.*from {least:,} to"):
        small.allocate(BudgetConfig(megabytes=0.001))
    assert small.allocate(BudgetConfig(megabytes=least / 1e6)).bytes == least
    assert least < small.allocate(BudgetConfig(ratio=1.01)).bytes <= largest


def test_the_written_file_is_never_larger_than_said(small, tmp_path):
    found = small.allocate(BudgetConfig(ratio=11))
    model = AutoModelForSequenceClassification.from_config(SMALL)
    for layer in small.layers:
        settings = found.settings[layer.ref.name]
        weight = weight_of(model, layer.ref)
        fast = settings.model_copy(update={"iterations": 1})
        replace(model, layer.ref, codec_class(settings.method).fit(weight, fast)[0])
    save_compressed(model, tmp_path / "m")
    size = (tmp_path / "m" / "model.safetensors").stat().st_size
    assert size <= found.bytes <= found.limit


def test_candidates_start_with_what_params_say_and_a_group_can_name_its_method(small):
    layer = small.layers[0]
    shape, nominal = layer.ref.shape, layer.settings
    assert layer_candidates(shape, nominal, small.config, "ffn")[0] == nominal
    groups = [GROUPS[0] | {"method": "product"}, *GROUPS[1:]]
    only = layer_candidates(shape, nominal, quantize(groups=groups), "ffn")
    assert {settings.method for settings in only} == {"product"}
    assert len(only) > 10
    for settings in only:
        assert codec_class("product").problems(layer.ref.shape, settings) == []


def test_few_bits_a_weight_are_tried_only_where_the_group_asks_for_a_grid(small):
    layer = small.layers[0]
    shape, product = layer.ref.shape, layer.settings
    groups = [GROUPS[0] | {"method": "uniform"}, *GROUPS[1:]]
    grid = codec_class("uniform").Settings()
    found = {}
    for name, nominal, config in (
        ("asked", grid, quantize(groups=groups)),
        ("not", product, small.config),
    ):
        every = layer_candidates(shape, nominal, config, "ffn")
        found[name] = {settings.bits for settings in every if settings.method == "uniform"}
    assert found == {"asked": {2, 3, 4, 6, 8}, "not": {4, 6, 8}}


def test_a_budget_is_one_of_two_numbers():
    assert limit_of(BudgetConfig(megabytes=4.5), 0) == 4_500_000
    assert limit_of(BudgetConfig(ratio=20), 1000) == 50
    for wrong in ({}, {"megabytes": 1, "ratio": 2}, {"ratio": 1}, {"megabytes": 0}):
        with pytest.raises(ValueError):
            BudgetConfig(**wrong)
