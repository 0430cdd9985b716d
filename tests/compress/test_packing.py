import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import InputError
from compress.packing import CHUNK, bits_for, pack, packed_size, unpack

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


@given(bits=st.integers(1, 16), data=st.data())
def test_what_is_packed_is_unpacked(bits, data):
    codes = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=70))
    tensor = torch.tensor(codes, dtype=torch.int64)
    packed = pack(tensor, bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == packed_size(len(codes), bits) == (len(codes) * bits + 7) // 8
    back = unpack(packed, bits, len(codes))
    assert back.dtype == torch.int32
    assert back.tolist() == codes


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bits", range(1, 17))
def test_bit_order_is_little_endian_on_every_device(bits, device):
    codes = np.random.default_rng(bits).integers(0, 2**bits, 1001)
    stream = (codes[:, None] >> np.arange(bits) & 1).astype(np.uint8).reshape(-1)
    expected = np.packbits(stream, bitorder="little")
    packed = pack(torch.from_numpy(codes).to(device), bits)
    assert packed.cpu().numpy().tobytes() == expected.tobytes()
    assert unpack(packed, bits, 1001).cpu().tolist() == codes.tolist()


def test_chunks_meet_on_whole_bytes():
    codes = torch.randint(0, 2**11, (2 * CHUNK + 13,))
    assert torch.equal(unpack(pack(codes, 11), 11, len(codes)), codes.int())


@pytest.mark.parametrize("codes", [[0, 256], [-1, 3]])
def test_a_code_that_does_not_fit_is_refused(codes):
    with pytest.raises(InputError, match="do not fit in 8 bits"):
        pack(torch.tensor(codes), 8)


@pytest.mark.parametrize(("dtype", "size"), [(torch.uint8, 9), (torch.int32, 10)])
def test_a_stream_of_the_wrong_size_or_dtype_is_refused(dtype, size):
    with pytest.raises(InputError, match="10 codes of 8 bits are 10 bytes"):
        unpack(torch.zeros(size, dtype=dtype), 8, 10)


@pytest.mark.parametrize(("k", "bits"), [(2, 1), (3, 2), (256, 8), (257, 9), (65536, 16)])
def test_bits_for(k, bits):
    assert bits_for(k) == bits
