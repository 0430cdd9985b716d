"""Which codes are frequent: rows of a weight differ, in their scale above all, so that each belongs
to one of 1, 2, 4 or 8 classes with frequencies of its own."""

from dataclasses import dataclass

import numpy as np

from compress.packing import bits_for, packed_size

CLASS_BITS = range(4)
STEPS = 1 << 12  # of a bit, in which the lengths of codes are compared: integers, to be repeatable


@dataclass(frozen=True)
class Model:
    """Class of each row, int64 (rows,), and the frequencies of the codes in each of the 2^bits
    classes, int64 (2^bits, size), of `width` bits at most. length: about the bytes of the stream.
    """

    bits: int
    classes: np.ndarray
    frequencies: np.ndarray
    width: int
    length: int


def precision_of(size: int) -> int:
    """p, of frequencies that add up to 2^p: 64 for each code on the average, as far as 16 bits
    hold them."""
    return min(16, max(12, bits_for(size) + 6))


def shortest(symbols: np.ndarray, size: int) -> Model:
    """For codes (rows, n) in [0, size): the number of classes that gives the shortest stream."""
    return min(
        (_model(symbols, size, bits) for bits in CLASS_BITS),
        key=lambda model: model.length,
    )


def _model(symbols: np.ndarray, size: int, bits: int) -> Model:
    """Rows sorted by the length of their codes are divided evenly; then each row goes to the class
    in which its codes are shortest."""
    rows, count, precision = len(symbols), 1 << bits, precision_of(size)
    classes = np.zeros(rows, np.int64)
    if bits:
        lengths = _lengths(_counts(symbols, classes, 1, size))[0]
        order = np.argsort(lengths[symbols].sum(1), kind="stable")
        classes[order] = np.arange(rows) * count // max(1, rows)
        lengths = _lengths(_counts(symbols, classes, count, size))
        classes = np.stack([own[symbols].sum(1) for own in lengths]).argmin(0)
    counts = _counts(symbols, classes, count, size)
    frequencies = np.stack([frequencies_of(own, precision) for own in counts])
    width = int(frequencies.max()).bit_length()
    lengths = precision * STEPS - _steps(np.maximum(frequencies, 1))
    words = int((counts * lengths).sum()) // STEPS // 8
    tables = packed_size(rows, bits) + packed_size(size << bits, width)
    return Model(bits, classes, frequencies, width, 2 + tables + 4 + words)


def _counts(symbols: np.ndarray, classes: np.ndarray, count: int, size: int) -> np.ndarray:
    """int64 (count, size): how often each code occurs in the rows of each class."""
    places = symbols + (classes * size)[:, None]
    return np.bincount(places.ravel(), minlength=count * size).reshape(count, size)


def _lengths(counts: np.ndarray) -> np.ndarray:
    """int32 (count, size): about the length of each code in each class, in steps of a bit."""
    smooth = 64.0 * counts + 1  # a code that is not in a class has a length, too
    return _steps(smooth.sum(1, keepdims=True) / smooth)


def _steps(values: np.ndarray) -> np.ndarray:
    return np.rint(STEPS * np.log2(values)).astype(np.int32)


def frequencies_of(counts: np.ndarray, precision: int) -> np.ndarray:
    """int64 (size,): in proportion to `counts`, at least 1 for a code that occurs, in all 2^p.

    Two of them at least are not 0, so that each is less than 2^p.
    """
    if (counts > 0).sum() < 2:
        counts = counts + (np.arange(len(counts)) < 2)
    used = counts > 0
    spare = (1 << precision) - int(used.sum())
    shares = counts * spare // counts.sum() + used
    rest = (1 << precision) - int(shares.sum())  # less than the codes in use
    shares[np.argsort(-counts, kind="stable")[:rest]] += 1
    return shares
