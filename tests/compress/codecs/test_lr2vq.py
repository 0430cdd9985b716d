import pytest
import torch

from compress.codecs.lr2vq import LR2VQCodec, LR2VQConfig
from compress.codecs.product import CodebookConfig, ProductCodec
from compress.errors import InputError


def fit(weight, **settings):
    return LR2VQCodec.fit(weight, LR2VQConfig(**settings))


def low_rank_blocks(rank, rows=128, columns=64, block=8):
    """A weight whose blocks lie in a subspace of `rank` dimensions."""
    draw = torch.Generator().manual_seed(0)
    basis = torch.randn(rank, block, generator=draw) * 0.1
    return (torch.randn(rows * columns // block, rank, generator=draw) @ basis).view(rows, columns)


def test_with_as_many_dimensions_as_weights_it_is_product_quantization():
    weight = torch.randn(128, 64, generator=torch.Generator().manual_seed(0)) * 0.1
    whole = fit(weight, block_size=4, codebook_size=64, dimension=4)[1]
    product = ProductCodec.fit(weight, CodebookConfig(block_size=4, codebook_size=64))[1]
    assert whole.relative_distortion == pytest.approx(product.relative_distortion, rel=0.03)


def test_blocks_of_low_rank_lose_nothing_to_fewer_dimensions_and_the_codebook_is_smaller():
    weight = low_rank_blocks(3)
    narrow = fit(weight, codebook_size=64, dimension=3)[1]
    wide = fit(weight, codebook_size=64, dimension=8)[1]
    assert narrow.relative_distortion == pytest.approx(wide.relative_distortion, rel=0.05)
    assert narrow.bytes == 128 * 64 // 8 * 6 // 8 + 64 * 3 * 2 + 3 * 8 * 2 < wide.bytes


def test_at_equal_bytes_it_beats_product_quantization_on_blocks_of_low_rank():
    """What the codebook saves pays for more codewords."""
    weight = low_rank_blocks(2, rows=64)
    ours = fit(weight, codebook_size=128, dimension=2)[1]
    product = ProductCodec.fit(weight, CodebookConfig(block_size=8, codebook_size=64))[1]
    assert ours.bytes < product.bytes
    assert ours.relative_distortion < 0.8 * product.relative_distortion


def test_each_block_takes_the_nearest_codeword():
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)) * 0.1
    codec, _ = fit(weight, codebook_size=16)
    centroids = codec.codebook.detach() @ codec.projection.detach()
    nearest = torch.cdist(weight.view(-1, 8), centroids).argmin(1)
    assert (codec._indices() == nearest).float().mean() > 0.999


def test_a_representation_is_the_weighted_least_squares_of_its_block():
    draw = torch.Generator().manual_seed(0)
    weight, sensitivity = torch.randn(2, 32, 64, generator=draw)
    sensitivity = sensitivity.abs()
    codec, _ = LR2VQCodec.fit(weight, LR2VQConfig(codebook_size=16), sensitivity=sensitivity)
    points, roots = weight.view(-1, 8), sensitivity.view(-1, 8).sqrt()
    found = codec._represented(points, roots.square())
    matrix = roots[:, :, None] * codec.projection.detach().T  # (n, m, d)
    expected = torch.linalg.lstsq(matrix, (roots * points)[..., None]).solution[..., 0]
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)


def test_more_dimensions_than_weights_are_refused():
    with pytest.raises(InputError, match="dimension 9 is more than the block size 8"):
        fit(torch.randn(64, 64), dimension=9)


def test_representations_get_the_gradient_of_the_blocks_by_the_projection():
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)) * 0.1
    codec, _ = fit(weight, codebook_size=16, dimension=3)
    codec.learn(weight)
    assert torch.equal(codec.latent.view(-1, 3), codec._represented(weight.view(-1, 8)))
    grad = torch.randn(32, 64, generator=torch.Generator().manual_seed(1))
    (codec.learned() * grad).sum().backward()
    expected = grad.view(-1, 8) @ codec.projection.detach().T
    torch.testing.assert_close(codec.latent.grad.view(-1, 3), expected)
    assert codec.projection.grad.abs().sum() > 0
