"""Distortion from a sample against whole fits, and what the other methods get."""

import itertools
import math

import pytest
import torch

from compress.allocation.curves import measure, undominated
from compress.blocks import row_size
from compress.codecs import codec_class
from compress.codecs.base import Codec
from compress.codecs.product_curve import product_candidates, sizes
from compress.codecs.product_settings import CodebookConfig


def weight(kind, shape=(512, 512)):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=generator)
    if kind == "rows":  # rows of very different size, and heavy tails
        values = values * values.abs().sqrt() * torch.rand(shape[0], 1, generator=generator)
    return values


@pytest.mark.parametrize("kind", ["normal", "rows"])
@pytest.mark.parametrize("d, k, scale", [(4, 64, False), (4, 1024, True), (8, 256, True)])
def test_a_sample_tells_what_a_whole_fit_will_give(kind, d, k, scale):
    settings = CodebookConfig(block_size=d, codebook_size=k, row_scale=scale)
    product, values = codec_class("product"), weight(kind)
    (expected,) = product.expected_distortions(values, [settings])
    assert [expected] == product.expected_distortions(values, [settings])
    assert expected == pytest.approx(product.fit(values, settings)[1].relative_distortion, rel=0.12)


@pytest.mark.parametrize("sensitive", [None, (4096, 1), (1, 128)])
@pytest.mark.parametrize("d, k, bits", [(4, 256, None), (4, 256, 4.8), (4, 64, 2.4), (8, 256, 5.6)])
def test_a_sample_tells_the_weighted_distortion_and_that_of_few_bits(sensitive, d, k, bits):
    """Of an embedding with a few rows that most of the error counts in, or of uneven inputs."""
    product, values = codec_class("product"), weight("normal", (4096, 128))
    sensitivity = None
    if sensitive:
        n = max(sensitive)
        sensitivity = (0.1 + 500 / torch.arange(1.0, n + 1)[torch.randperm(n)]).view(sensitive)
        sensitivity /= sensitivity.mean()
    settings = CodebookConfig(block_size=d, codebook_size=k, code_bits=bits)
    (expected,) = product.expected_distortions(values, [settings], sensitivity=sensitivity)
    _, report = product.fit(values, settings, sensitivity=sensitivity)
    right = report.relative_distortion if sensitivity is None else report.weighted_distortion
    assert expected == pytest.approx(right, rel=0.2)


def test_curves_are_weighted_by_the_sensitivity():
    values = weight("normal", (256, 64))
    sensitivity = torch.linspace(0.1, 1.9, 64)[None]
    settings = [CodebookConfig(block_size=4, codebook_size=k) for k in (16, 64)]
    curve = measure(values, settings, sensitivity=sensitivity)
    assert curve["energy"] == pytest.approx(float((values.square() * sensitivity).sum()), rel=1e-5)
    plain = measure(values, settings)
    for weighted, even in zip(curve["points"], plain["points"], strict=True):
        assert weighted["bytes"] == even["bytes"]
        assert weighted["distortion"] < even["distortion"]


def test_a_curve_falls_and_says_exact_bytes():
    values = weight("rows", (256, 64))
    candidates = product_candidates(values.shape, CodebookConfig())
    curve = measure(values, candidates, seed=3)
    assert curve == measure(values, candidates, seed=3)
    assert curve["energy"] == pytest.approx(float(values.square().sum()))
    points = curve["points"]
    assert 5 < len(points) <= len(candidates)
    for small, large in itertools.pairwise(points):
        assert small["bytes"] < large["bytes"] and small["distortion"] > large["distortion"]
    for point in points[:: len(points) // 3]:
        _, report = codec_class("product").fit(values, CodebookConfig(**point["settings"]))
        assert report.bytes == point["bytes"]


def test_dominated_candidates_are_left_out():
    raw = [(5, 0.5), (5, 0.4), (7, 0.45), (9, 0.1), (3, 0.9), (9, 0.1)]
    points = [{"bytes": b, "distortion": d} for b, d in raw]
    assert [(p["bytes"], p["distortion"]) for p in undominated(points)] == [
        (3, 0.9), (5, 0.4), (9, 0.1),
    ]  # fmt: skip


def test_a_method_without_an_estimate_of_its_own_is_fitted_on_some_rows():
    """What a new codec gets by default, here product quantization without its own estimate."""
    product, values = codec_class("product"), weight("normal", (4096, 128))
    settings = CodebookConfig(block_size=4, codebook_size=16, iterations=4)
    (expected,) = Codec.expected_distortions.__func__(product, values, [settings])
    whole = product.fit(values, settings)[1].relative_distortion
    assert expected == pytest.approx(whole, rel=0.03)
    assert expected != whole


@pytest.mark.parametrize(
    "shape, blocks",
    [
        ((768, 768), {2, 4, 8, 16}),
        ((256, 128, 3, 3), {2, 4, 8, 9, 16}),
        ((9000, 27), {3, 9}),
        ((32, 16), {2, 4, 8, 16}),
    ],
)
def test_blocks_divide_the_rows_and_codebooks_are_small_beside_codes(shape, blocks):
    found = list(sizes(shape))
    assert {d for d, _ in found} == blocks
    assert len(set(found)) == len(found)
    for d, k in found:
        settings = CodebookConfig(block_size=d, codebook_size=k)
        assert codec_class("product").problems(shape, settings) == []
        codec = codec_class("product").empty(shape, settings)
        codebook, codes = 2 * codec.codebook.numel(), codec.codes.numel()  # bytes
        finest = d == min(blocks) and codebook + codes <= shape[0] * row_size(shape)
        assert k == 16 or finest or codebook <= 0.25 * codes + 1


def test_a_small_layer_can_be_kept_as_well_as_by_eight_bits():
    """Nothing finer than its smallest blocks could do it in place of a large codebook."""
    for shape in ((96, 16), (24, 144, 1, 1), (32, 3, 3, 3)):
        finest = min(d for d, _ in sizes(shape))
        weights = shape[0] * row_size(shape)
        bits = [math.log2(k) / d + 16 * k * d / weights for d, k in sizes(shape) if d == finest]
        assert 5 < max(bits) <= 8
