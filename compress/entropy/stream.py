"""The stream, little-endian:

    1 byte                         bits of a class, b: there are 2^b
    1                              bits of a frequency, w
    ceil(rows * b / 8)             the class of each row, packed
    ceil(2^b * size * w / 8)       the frequencies of the codes 0 ... size - 1 in the first class,
                                   in the second, ..., packed; those of a class add up to 2^p
    8                              the state to start from
    4 each                         the words that refill the state, in the order they are read

and zeros where it would be shorter than 1/16 of the packed codes: so a small file cannot make a
reader set up memory without bound.
"""

import numpy as np
import torch
from torch import Tensor

from compress.entropy.kernels import START, decode_words, encode_words, kernel
from compress.entropy.model import CLASS_BITS, Model, precision_of, shortest
from compress.errors import InputError
from compress.packing import bits_for, pack, packed_size, unpack

PAYS = 0.98  # of the packed bytes: codes that need more stay packed
LEAST = 16  # packed bytes for one byte of a stream, at most


def encode_if_smaller(codes: Tensor, size: int) -> Tensor | None:
    """`encode`, where that saves more than 2 % of the packed bytes, frequencies and all."""
    symbols, most = _symbols(codes), PAYS * packed_size(codes.numel(), bits_for(size))
    model = shortest(symbols, size)
    if model.length >= most:
        return None
    stream = _encode(symbols, size, model)
    return stream if len(stream) < most else None


def encode(codes: Tensor, size: int) -> Tensor:
    """The stream, uint8 on the CPU, of integer codes (rows, n) in [0, size), 2 <= size <= 65536.

    What comes before the words, and at most about 0.02 bits a code more than their entropy (for
    size <= 1024; 0.2 for the largest). The same codes give the same bytes.
    """
    symbols = _symbols(codes)
    return _encode(symbols, size, shortest(symbols, size))


def decode(stream: Tensor, size: int, rows: int, n: int) -> Tensor:
    """The codes, int32 (rows, n) on the stream's device, that `encode` put into `stream`.

    All lie in [0, size). Raises InputError where the stream is damaged, too short or too long.
    """
    data = stream.detach().cpu().numpy().tobytes()
    bits, width = data[:2] if len(data) > 1 else (0, 0)
    if bits not in CLASS_BITS or not 1 <= width <= 16:
        raise InputError(f"the coded stream is damaged: {bits} bits a class, {width} a frequency")
    tables = 2 + packed_size(rows, bits)
    head = tables + packed_size(size << bits, width) + 8
    if len(data) < head or (len(data) - head) % 4:
        raise InputError(f"the coded stream is damaged: it has {len(data)} bytes")
    classes = _unpack(data[2:tables], bits, rows)
    frequencies = _unpack(data[tables : head - 8], width, size << bits).reshape(-1, size)
    state = int.from_bytes(data[head - 8 : head], "little")
    precision = precision_of(size)
    if (frequencies.sum(1) != 1 << precision).any() or not START <= state < START << 32:
        raise InputError("the coded stream is damaged: its frequencies do not add up")
    words = np.frombuffer(data, "<u4", offset=head).astype(np.int64)
    every = np.tile(np.arange(size, dtype=np.uint16), 1 << bits)
    symbols = np.repeat(every, frequencies.ravel()).reshape(-1, 1 << precision)
    codes = np.empty((rows, n), np.int32)
    last, used = kernel(decode_words)(
        codes,
        classes,
        state,
        words,
        symbols,
        frequencies,
        _starts(frequencies),
        precision,
    )
    if last != START or used > len(words) or words[used:].any():
        raise InputError(f"the coded stream is damaged: it does not end with {rows * n} codes")
    return torch.from_numpy(codes).to(stream.device)


def _encode(symbols: np.ndarray, size: int, model: Model) -> Tensor:
    precision = precision_of(size)
    words = np.empty(symbols.size * precision // 32 + 2, np.uint32)
    frequencies, starts = model.frequencies, _starts(model.frequencies)
    state, used = kernel(encode_words)(
        symbols, model.classes, frequencies, starts, precision, words
    )
    stream = bytes([model.bits, model.width]) + _pack(model.classes, model.bits)
    stream += _pack(frequencies.ravel(), model.width) + int(state).to_bytes(8, "little")
    stream += words[:used][::-1].astype("<u4").tobytes()  # what was written last is read first
    short = packed_size(symbols.size, bits_for(size)) // LEAST - len(stream)
    stream += bytes(max(0, -(-short // 4) * 4))
    return torch.frombuffer(bytearray(stream), dtype=torch.uint8)


def _symbols(codes: Tensor) -> np.ndarray:
    return codes.detach().cpu().to(torch.int32).numpy()


def _pack(values: np.ndarray, bits: int) -> bytes:
    return pack(torch.from_numpy(values), bits).numpy().tobytes() if bits else b""


def _unpack(data: bytes, bits: int, n: int) -> np.ndarray:
    if not bits or not n:
        return np.zeros(n, np.int64)
    packed = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return unpack(packed, bits, n).numpy().astype(np.int64)


def _starts(frequencies: np.ndarray) -> np.ndarray:
    return np.cumsum(frequencies, axis=1) - frequencies
