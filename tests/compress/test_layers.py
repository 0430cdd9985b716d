import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from compress.codecs.product import ProductCodec
from compress.codecs.product_settings import CodebookConfig
from compress.errors import InputError
from compress.layers import compressed, kind_of, oriented

SETTINGS = CodebookConfig(block_size=4, codebook_size=8)


def codec_for(module, **changes):
    weight = oriented(module, module.weight)
    return ProductCodec.fit(weight, SETTINGS.model_copy(update=changes), seed=0)[0]


def twin(module, codec):
    """`module` itself with the decoded weight: what the compressed layer must equal. Of a Conv1D it
    is the linear layer, as the last bit of a product taken the other way around may differ."""
    dense = copy.deepcopy(module)
    dense.weight.data = oriented(module, codec.decode().detach())
    if not isinstance(module, Conv1D):
        return dense
    linear = nn.Linear(*codec.shape[::-1])
    linear.weight.data, linear.bias = codec.decode().detach(), dense.bias
    x = torch.randn(7, linear.in_features)
    torch.testing.assert_close(linear(x), dense(x))
    return linear


CASES = {
    "linear": (nn.Linear(8, 6), torch.randn(3, 5, 8)),
    "linear-no-bias": (nn.Linear(8, 6, bias=False), torch.randn(3, 8)),
    "conv1d": (Conv1D(12, 8), torch.randn(3, 5, 8)),
    "embedding": (nn.Embedding(20, 8), torch.randint(0, 20, (4, 7))),
    "embedding-padded": (nn.Embedding(20, 8, padding_idx=3), torch.tensor([[3, 1, 3, 3, 19]])),
    "conv": (nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2), torch.randn(2, 4, 9, 9)),
    "conv-groups": (nn.Conv2d(8, 4, 3, groups=2, bias=False), torch.randn(2, 8, 6, 6)),
    "conv-same": (nn.Conv2d(4, 4, 3, padding="same"), torch.randn(2, 4, 6, 5)),
    "conv-reflect": (
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        torch.randn(2, 4, 6, 5),
    ),
    "conv-same-circular": (
        nn.Conv2d(4, 4, 3, padding="same", padding_mode="circular"),
        torch.randn(2, 4, 6, 5),
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("row_scale", [True, False])
def test_forward_and_bias_gradient_are_those_of_the_dense_layer(case, row_scale):
    module, x = CASES[case]
    codec = codec_for(module, row_scale=row_scale)
    layer, dense = compressed(module, codec), twin(module, codec)
    ours, reference = layer(x), dense(x)
    assert torch.equal(ours, reference)
    ours.square().sum().backward()
    assert codec.codebook.grad.abs().sum() > 0
    if getattr(module, "bias", None) is not None:
        assert layer.bias is module.bias
        reference.square().sum().backward()
        torch.testing.assert_close(layer.bias.grad, dense.bias.grad)
        module.bias.grad = None


def test_codebook_gradient_is_the_sum_over_the_blocks_of_each_centroid():
    module, x = CASES["linear"]
    codec = codec_for(module)
    dense = twin(module, codec)
    compressed(module, codec)(x).square().sum().backward()
    dense(x).square().sum().backward()
    expected = torch.zeros(8, 4)
    for code, block in zip(codec.indices.tolist(), dense.weight.grad.reshape(-1, 4), strict=True):
        expected[code] += block
    torch.testing.assert_close(codec.codebook.grad, expected)


def test_the_padding_row_gives_no_gradient():
    module = nn.Embedding(20, 8, padding_idx=3)
    codec = codec_for(module)
    layer = compressed(module, codec)
    layer(torch.tensor([3, 3])).sum().backward()
    assert not codec.codebook.grad.any()
    assert layer.padding_idx == 3


def test_only_the_rows_of_the_batch_are_decoded():
    module = nn.Embedding(20, 8)
    codec, asked = codec_for(module), []
    decode_rows = codec.decode_rows
    codec.decode_rows = lambda rows: asked.append(rows) or decode_rows(rows)
    codec.decode = lambda: pytest.fail("the whole table was decoded")
    compressed(module, codec)(torch.tensor([[7, 2, 7], [2, 7, 7]]))
    assert [rows.tolist() for rows in asked] == [[2, 7]]


def test_a_tied_layer_shares_the_codec_and_owns_no_tensor():
    embedding, head = nn.Embedding(20, 8), nn.Linear(8, 20)
    codec = codec_for(embedding)
    model = nn.ModuleDict({"embedding": compressed(embedding, codec)})
    model["head"] = compressed(head, codec, tied=True)
    names = set(model.state_dict())
    assert names == {"embedding.codec.codes", "embedding.codec.codebook", "head.bias"}
    twin_model = copy.deepcopy(model)
    assert twin_model["head"].codec is twin_model["embedding"].codec is not codec
    ids = torch.randint(0, 20, (5,))
    model["head"](model["embedding"](ids)).sum().backward()
    assert codec.codebook.grad is not None
    weight = codec.decode()
    logits = model["head"](model["embedding"](ids))
    assert torch.equal(logits, F.linear(weight[ids], weight, head.bias))


def test_state_dict_names():
    layer = compressed(nn.Linear(8, 6), codec_for(nn.Linear(8, 6), row_scale=True))
    assert set(layer.state_dict()) == {"codec.codes", "codec.codebook", "codec.row_scale", "bias"}


def test_weight_can_be_read_as_of_an_ordinary_layer():
    attention = nn.MultiheadAttention(8, 2)
    x = torch.randn(3, 1, 8)
    codec = codec_for(attention.out_proj)
    dense = copy.deepcopy(attention)
    dense.out_proj.weight.data = codec.decode().detach()
    attention.out_proj = compressed(attention.out_proj, codec)
    assert torch.equal(attention(x, x, x)[0], dense(x, x, x)[0])


class ScaledEmbedding(nn.Embedding):
    def forward(self, ids):
        return 2 * super().forward(ids)


@pytest.mark.parametrize(
    "module", [ScaledEmbedding(4, 4), nn.Embedding(4, 4, max_norm=1.0), nn.LayerNorm(4)]
)
def test_a_module_that_computes_something_else_is_left_alone(module):
    assert kind_of(module) is None
    with pytest.raises(InputError, match="cannot be compressed"):
        compressed(module, codec_for(nn.Linear(8, 8)))


def test_a_codec_of_another_shape_is_refused():
    with pytest.raises(InputError, match="does not fit"):
        compressed(nn.Linear(8, 6), codec_for(nn.Linear(8, 12)))
