import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.entropy import LEAST, decode, encode, encode_if_smaller, stream
from compress.errors import InputError
from compress.packing import bits_for, packed_size


def draw_codes(size, rows, n, skew, seed, used):
    """Codes (rows, n) of which `used` symbols occur, the i-th with probability about 1 / i^skew."""
    draw = np.random.default_rng(seed)
    share = np.arange(1, used + 1, dtype=float) ** -skew
    symbols = draw.choice(size, used, replace=False)
    return torch.from_numpy(symbols[draw.choice(used, (rows, n), p=share / share.sum())])


def entropy_bytes(codes):
    counts = torch.unique(codes, return_counts=True)[1].double()
    return float(-(counts * (counts / codes.numel()).log2()).sum()) / 8


def head(coded, size, rows):
    """Bytes before the words."""
    bits, width = int(coded[0]), int(coded[1])
    return 2 + packed_size(rows, bits) + packed_size(size << bits, width) + 8


@settings(max_examples=150, deadline=None)
@given(
    size=st.sampled_from([2, 3, 10, 16, 255, 256, 257, 1024, 4096, 65536]),
    shape=st.sampled_from([(0, 0), (1, 0), (1, 1), (2, 1), (7, 1), (10, 50), (40, 500), (1, 9999)]),
    skew=st.sampled_from([0.0, 0.5, 1.0, 3.0, 12.0]),
    seed=st.integers(0, 2**32),
    part=st.floats(0, 1),
)
def test_what_is_coded_is_decoded_in_few_bytes_beyond_the_entropy(size, shape, skew, seed, part):
    codes = draw_codes(size, *shape, skew, seed, used=max(1, round(part * size)))
    coded = encode(codes, size)
    assert coded.dtype == torch.uint8
    back = decode(coded, size, *shape)
    assert back.dtype == torch.int32
    assert torch.equal(back, codes.int())
    assert torch.equal(coded, encode(codes.int(), size))

    n = codes.numel()
    packed = packed_size(n, bits_for(size))
    beyond = 0.023 if len(codes.unique()) <= 1024 else 0.2  # bits, where rare codes take 2^-p each
    bound = 10 + packed_size(size, 16) + 1.001 * (entropy_bytes(codes) + beyond * n / 8) + 4
    assert packed // LEAST <= len(coded) <= max(bound, packed / LEAST + 4)


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from([2, 3, 16, 200, 256, 1000, 1024]),
    skew=st.sampled_from([0.0, 0.3, 0.7]),
    seed=st.integers(0, 2**32),
)
def test_codebooks_in_use_come_within_1_percent_of_the_entropy(size, skew, seed):
    codes = draw_codes(size, 10, 7 * size + 100, skew, seed, used=size)
    coded = encode(codes, size)
    assert len(coded) - head(coded, size, 10) <= 1.01 * entropy_bytes(codes)


def test_only_what_saves_more_than_2_percent_is_coded():
    even = torch.arange(100_000).view(100, 1000) % 256
    assert encode_if_smaller(even, 256) is None
    assert encode_if_smaller(even[:0], 256) is None
    assert encode_if_smaller((torch.arange(64) % 3).view(1, 64), 4) is None  # frequencies cost more
    assert encode_if_smaller(torch.zeros_like(even), 16) is not None
    pays = []
    for share in np.linspace(0.2, 0.4, 21):  # of codes below 128: they are 7.72 to 7.97 bits
        codes = torch.where(torch.arange(1000) < 1000 * share, even % 128, even | 128)
        pays.append(encode_if_smaller(codes, 256) is not None)
        assert pays[-1] == (len(encode(codes, 256)) < 98_000)
    assert pays[0]
    assert not pays[-1]


def test_a_single_code_is_padded_so_that_bytes_bound_what_is_set_up():
    n = 1 << 20
    coded = encode(torch.full((1, n), 3), 256)
    assert n // LEAST <= len(coded) < n // LEAST + 4
    assert torch.equal(decode(coded, 256, 1, n), torch.full((1, n), 3, dtype=torch.int32))


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_a_damaged_stream_is_refused_or_gives_codes_of_the_codebook(data):
    size, rows, n = data.draw(st.sampled_from([(3, 5, 100), (256, 20, 100), (65536, 1, 100)]))
    right = draw_codes(size, rows, n, 1.0, 0, used=min(size, 90))
    right[: rows // 2] = right[0, 0]  # two classes of rows
    coded = encode(right, size).numpy().copy()
    kind = data.draw(st.sampled_from(["flip", "cut", "extend", "noise"]))
    if kind == "flip":
        place = data.draw(
            st.integers(0, min(len(coded), data.draw(st.sampled_from([12, 1000]))) - 1)
        )
        coded[place] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        coded = coded[: data.draw(st.integers(0, len(coded) - 1))].copy()
    elif kind == "extend":
        coded = np.append(coded, np.uint8(data.draw(st.integers(1, 255))))
    else:
        coded = np.frombuffer(data.draw(st.binary(max_size=200)), np.uint8).copy()
    try:
        codes = decode(torch.from_numpy(coded), size, rows, n)
    except InputError as error:
        assert "coded stream is damaged" in str(error)
    else:
        assert kind in ("flip", "noise")
        assert codes.shape == (rows, n)
        assert 0 <= int(codes.min()) <= int(codes.max()) < size


@pytest.mark.parametrize("shape", [(10, 49), (10, 51), (9, 50), (11, 50)])
def test_another_number_of_codes_is_refused(shape):
    coded = encode(draw_codes(256, 10, 50, 1.0, 0, used=90), 256)
    with pytest.raises(InputError, match="the coded stream is damaged"):
        decode(coded, 256, *shape)


def test_the_bytes_are_the_same_without_the_compiler(monkeypatch):
    codes = draw_codes(1000, 30, 100, 1.0, 0, used=900)
    compiled = encode(codes, 1000)
    monkeypatch.setattr(stream, "kernel", lambda function: function)
    assert torch.equal(encode(codes, 1000), compiled)
    assert torch.equal(decode(compiled, 1000, 30, 100), codes.int())
