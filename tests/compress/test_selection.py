import pytest
import torch
from torch import nn

from compress.config import QuantizeConfig
from compress.selection import compressible, matches, select
from tests.compress.models import bert, gpt2, masked_lm, resnet, roberta


def quantize(*groups, **defaults):
    return QuantizeConfig(groups=[*groups], **({"codebook_size": 16, "block_size": 4} | defaults))


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("**.intermediate.dense", "bert.encoder.layer.0.intermediate.dense", True),
        ("**.intermediate.dense", "intermediate.dense", True),
        ("**.intermediate.dense", "bert.intermediate.dense.more", False),
        ("**.layer.*.output.dense", "bert.encoder.layer.0.output.dense", True),
        ("**.layer.*.output.dense", "bert.encoder.layer.0.attention.output.dense", False),
        ("layer_*.weight", "layer_12.weight", True),
        ("*", "a", True),
        ("*", "a.b", False),
        ("**", "a.b.c", True),
        ("a.**.c", "a.c", True),
        ("a.**.**.c", "a.b.b.c", True),
        ("a.b", "aXb", False),
        ("A.b", "a.b", False),
    ],
)
def test_matches(pattern, name, expected):
    assert matches(pattern, name) is expected


def test_a_tied_weight_is_one_layer_also_on_meta():
    with torch.device("meta"):
        refs = {ref.name: ref for ref in compressible(masked_lm())}
    ref = refs["bert.embeddings.word_embeddings"]
    assert (ref.kind, ref.shape) == ("embedding", (120, 32))
    assert ref.aliases == ("cls.predictions.decoder",)
    assert ref.tensor == "bert.embeddings.word_embeddings.weight"
    assert "cls.predictions.decoder" not in refs


def test_a_module_used_twice_is_one_layer():
    shared = nn.Linear(4, 4)
    refs = compressible(nn.ModuleDict({"a": shared, "b": shared}))
    assert [(ref.name, ref.aliases) for ref in refs] == [("a", ("b",))]


def test_a_weight_tied_to_something_else_is_left_out():
    class Scaled(nn.Embedding):
        def forward(self, ids):
            return 2 * super().forward(ids)

    model = nn.ModuleDict({"embed": Scaled(8, 4), "head": nn.Linear(4, 8), "free": nn.Linear(4, 4)})
    model["head"].weight = model["embed"].weight
    assert [ref.name for ref in compressible(model)] == ["free"]


def test_kinds_of_a_convolutional_network():
    kinds = [ref.kind for ref in compressible(resnet())]
    assert kinds.count("conv2d") == 6
    assert kinds.count("linear") == 1


def test_depthwise_convolutions_are_left_alone_but_by_their_name():
    model = nn.ModuleDict(
        {
            "expand": nn.Conv2d(4, 16, 1),
            "depth": nn.Conv2d(16, 16, 3, groups=16),
            "grouped": nn.Conv2d(16, 16, 3, groups=4),
            "gray": nn.Conv2d(1, 16, 3),
        }
    )

    def chosen(*patterns):
        found = select(model, quantize({"name": "all", "layers": [*patterns], "block_size": 1}))
        return [layer.ref.name for layer in found.layers], found.problems

    assert chosen("**") == (["expand", "grouped", "gray"], ())
    assert chosen("**", "depth") == (["expand", "depth", "grouped", "gray"], ())
    names, (problem,) = chosen("dep*")
    assert names == [] and "depthwise" in problem and "without `*`" in problem


def test_neurons_of_a_conv1d_are_found_as_those_of_any_linear_layer():
    found = select(gpt2(), quantize({"name": "ffn", "layers": ["**.mlp.*"], "method": "neurons"}))
    assert found.problems == () and len(found.layers) == 2


def test_groups_keep_the_order_of_the_params_and_their_own_settings():
    config = quantize(
        {"name": "ffn", "layers": ["**.intermediate.dense", "**.layer.*.output.dense"]},
        {"name": "attention", "layers": ["**.attention.self.*"], "block_size": 2},
    )
    selection = select(roberta(), config)
    assert selection.problems == ()
    assert [layer.group for layer in selection.layers] == ["ffn"] * 4 + ["attention"] * 6
    assert {layer.settings.block_size for layer in selection.group("attention")} == {2}
    assert selection.layers[0].ref.name == "roberta.encoder.layer.0.intermediate.dense"


def test_every_problem_is_listed_at_once():
    config = quantize(
        {"name": "ffn", "layers": ["**.intermediat.dense", "**.layer.*.output.dense"]},
        {"name": "again", "layers": ["**.output.dense"], "block_size": 5},
        {"name": "norms", "layers": ["**.LayerNorm"]},
        {"name": "head", "layers": ["classifier"], "codebook_size": 64},
    )
    problems = select(bert(), config).problems
    text = "\n".join(problems)
    assert "group ffn: `**.intermediat.dense` matches no layer of the model; the nearest" in text
    assert problems[0].endswith(".intermediate.dense")
    assert "`**.LayerNorm` matches only what cannot be compressed (LayerNorm)" in text
    assert "layer.0.output.dense is matched by two groups, ffn and again" in text
    assert "block size 5 does not divide the 32 inputs" in text
    assert "classifier (group head): 16 blocks are fewer than 64 centroids" in text


def test_naming_a_tied_weight_by_either_name_selects_the_one_layer():
    for pattern in ("**.word_embeddings", "cls.predictions.decoder"):
        selection = select(masked_lm(), quantize({"name": "e", "layers": [pattern]}))
        assert [layer.ref.name for layer in selection.layers] == ["bert.embeddings.word_embeddings"]
        assert "compressed together, counted once" in selection.notes[0]
    both = quantize(
        {"name": "e", "layers": ["**.word_embeddings"]}, {"name": "h", "layers": ["**.decoder"]}
    )
    assert (
        "(tied with cls.predictions.decoder) is matched by two"
        in select(masked_lm(), both).problems[0]
    )
