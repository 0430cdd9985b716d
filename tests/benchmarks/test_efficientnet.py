"""A small network of EfficientNet-Lite's build, random weights: what the benchmark does to it."""

import copy

import pytest
import torch
from torch import nn

from benchmarks import efficientnet, efficientnet_lite, efficientnet_methods, photographs
from benchmarks.efficientnet_lite import EfficientNetLite, EfficientNetLiteConfig
from benchmarks.glue_cells import read_spec
from benchmarks.vision_methods import METHODS, cell, chosen, rows
from compress.checkpoint import save_compressed
from compress.config import BudgetConfig, RecoveryConfig
from compress.layers import CompressedConv2d
from compress.selection import compressible

SMALL = ((1, 3, 1, 1, 16), (2, 5, 2, 2, 24))


@pytest.fixture(scope="module")
def images():
    return torch.cat(
        [
            photographs.crops(24, seed=0, held_out=False, size=40),
            photographs.textures(8, seed=0, size=40),
        ]
    )


@pytest.fixture(scope="module")
def teacher(images):
    torch.manual_seed(0)
    model = EfficientNetLite(EfficientNetLiteConfig(SMALL, stem=16, head=32, num_labels=10))
    for module in model.modules():  # outputs that differ, unlike those of transformers' first ones
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    with torch.no_grad():
        for _ in range(50):  # running statistics of batch norm
            model.train()(images)
    return model.eval()


def test_convolutions_but_depthwise_have_the_blocks_of_the_paper(teacher):
    layers = {x.ref.name: x.settings for x in efficientnet.layers_of(teacher, 4)}
    others = {ref.name for ref in compressible(teacher)} - layers.keys()
    assert others == {f"_blocks.{i}._depthwise_conv" for i in range(3)}
    assert layers["_conv_stem"].block_size == 9  # a kernel of one input channel
    assert layers["_blocks.1._expand_conv"].block_size == layers["_fc"].block_size == 4
    assert layers["_conv_stem"].codebook_size == 8  # 48 blocks, at most a centroid for four


def test_distillation_brings_the_outputs_back(teacher, images, tmp_path):
    held_out = photographs.crops(16, seed=1, held_out=True, size=40)
    recovery = RecoveryConfig(
        max_steps=24, batch_size=16, learning_rate=3e-4, centroid_learning_rate=1e-3,
        temperature=1.0, hidden_weight=0.0, bf16=False,
    )  # fmt: skip
    found = {}
    for name, asked in (("clustered", None), ("distilled", recovery)):
        model = copy.deepcopy(teacher)
        layers = efficientnet.layers_of(model, 4)
        efficientnet.compress(model, layers, images, asked, tmp_path / name)
        save_compressed(model, tmp_path / "m")
        again = EfficientNetLite.from_pretrained(tmp_path / "m").eval()
        with torch.inference_mode():
            assert torch.equal(again(held_out).logits, model(held_out).logits)
        assert isinstance(again._blocks[1]._expand_conv, CompressedConv2d)
        found[name] = efficientnet.agreement(again, teacher, held_out)
    assert 0 < found["distilled"].error < found["clustered"].error


@pytest.mark.parametrize("row", ["product-8x", "dkm-8x", "adaround-8x", "qat-8x"])
def test_a_method_meets_the_budget_and_learns(teacher, images, tmp_path, row):
    config = rows(read_spec(METHODS), efficientnet_methods.LAYERS)[row]
    held_out = {"photographs": photographs.crops(16, seed=1, held_out=True, size=40)}
    network = efficientnet_methods.of(teacher, images, held_out, {})
    small = config.model_copy(update={"budget": BudgetConfig(ratio=1.7)})
    layers = chosen(network, small, {}, "method")
    recovery = RecoveryConfig(
        max_steps=24, batch_size=16, learning_rate=1e-4, centroid_learning_rate=1e-3,
        temperature=1.0, hidden_weight=0.0, bf16=False,
    )  # fmt: skip
    found = cell(network, layers, recovery, tmp_path)
    assert found["bytes"] < 1.1 * network.bytes / 1.7  # running statistics are no parameters
    before, after = (found[when]["photographs"]["error"] for when in ("before", "after"))
    assert 0 < after < before


def test_a_layer_without_settings_is_left_to_methods_that_have_some(teacher, images):
    every = rows(read_spec(METHODS), efficientnet_methods.LAYERS)
    network, curves = efficientnet_methods.of(teacher, images, {}, {}), {}
    found = {}
    for method, ratio in (("lr2vq", 1.4), ("uniform", 2.0)):
        small = every[f"{method}-8x"].model_copy(update={"budget": BudgetConfig(ratio=ratio)})
        found[method] = {x.ref.name for x in chosen(network, small, curves, method)}
    assert "_conv_stem" in found["uniform"] - found["lr2vq"]  # 27 inputs: no even block


def test_methods_but_those_of_feed_forward_blocks_have_rows():
    spec = read_spec(METHODS)
    found = rows(spec, efficientnet_methods.LAYERS)
    every = {row.name for row in spec.rows if row.kind == "ipq" and not row.extra}
    assert {name.rpartition("-")[0] for name in every - found.keys()} == {"neurons"}
    assert found.keys() <= every


def test_images_are_the_same_every_time_and_held_out_ones_are_others():
    a, b = (photographs.crops(6, seed=3, held_out=held_out, size=24) for held_out in (False, True))
    assert torch.equal(a, photographs.crops(6, seed=3, held_out=False, size=24))
    assert a.shape == b.shape == (6, 3, 24, 24) and not torch.equal(a, b)
    pixels = photographs.textures(3, seed=0, size=24)
    assert pixels.abs().max() <= 1 and pixels.std() > 0.1


@pytest.mark.skipif(not efficientnet_lite.available(), reason="the package is not installed")
def test_packaged_weights_know_what_is_in_the_photographs():
    """A palace, a daisy, a military uniform: classes 698, 985 and 652 of ImageNet."""
    model = efficientnet_lite.pretrained()
    whole = torch.cat([photographs._tensor(_square(image)) for image in photographs.photographs()])
    with torch.inference_mode():
        best = model(whole).logits.topk(5).indices.tolist()
    assert 698 in best[0] and 985 in best[1] and 652 in best[2]


def _square(image):
    import numpy as np
    from PIL import ImageOps

    return np.asarray(ImageOps.fit(image, (224, 224)), dtype=np.float32)[None]
