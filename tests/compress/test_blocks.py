import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.blocks import from_blocks, to_blocks
from compress.errors import InputError


@given(
    rows=st.integers(1, 5),
    tail=st.lists(st.integers(1, 3), max_size=2),
    per_row=st.integers(1, 4),
    d=st.integers(1, 6),
)
def test_every_block_is_a_run_of_one_row(rows, tail, per_row, d):
    shape = (rows, per_row * d, *tail)
    weight = torch.arange(float(torch.tensor(shape).prod())).reshape(shape)
    blocks = to_blocks(weight, d)
    flat = weight.flatten(1)
    assert blocks.shape == (weight.numel() // d, d)
    for i, block in enumerate(blocks):
        row, start = divmod(i * d, flat.shape[1])
        assert torch.equal(block, flat[row, start : start + d])
    assert torch.equal(from_blocks(blocks, shape), weight)


def test_conv_blocks_run_along_the_inputs():
    weight = torch.randn(4, 2, 3, 3)
    assert torch.equal(to_blocks(weight, 9)[1], weight[0, 1].flatten())


def test_a_block_size_that_does_not_divide_names_those_that_do():
    with pytest.raises(InputError, match=r"block size 5 does not divide the 12 .* 2, 3, 4, 6, 12"):
        to_blocks(torch.zeros(3, 12), 5)


def test_a_vector_has_no_rows():
    with pytest.raises(InputError, match="no rows"):
        to_blocks(torch.zeros(8), 4)


def test_blocks_must_fill_the_shape():
    with pytest.raises(InputError, match="do not fill"):
        from_blocks(torch.zeros(3, 4), (2, 8))
