"""Codes of a product codec that fit a number of bytes on disk, entropy-coded."""

from dataclasses import dataclass
from math import exp, log

from torch import Tensor

from compress.entropy import LEAST, PAYS, encode
from compress.errors import InputError
from compress.kmeans.entropy_constrained import constrain
from compress.packing import bits_for, packed_size

HEAD = 64  # bytes of a stream beside frequencies and words
CLOSE = 0.005  # of the bytes: as much may be left
ROUNDS = 8  # of a try: codes get shorter in each
FIRST_PRICE = 0.1  # of a bit, in mean errors of a block, where the search begins,
GROWTH, LAST_PRICE = 0.7, 40.0  # goes up, and gives up: logarithms
TRIES = 10


def most_code_bytes(count: int, size: int, code_bits: float | None) -> int:
    """Bytes of `count` codes in [0, size) on disk, at most: packed, or `code_bits` on the mean."""
    packed = packed_size(count, bits_for(size))
    if code_bits is None:
        return packed
    coded = int(count * code_bits / 8)
    return coded if coded < PAYS * packed else packed


def code_bits_problems(count: int, size: int, code_bits: float | None) -> list[str]:
    """A stream is never shorter than 1/LEAST of the packed codes, and has its frequencies."""
    if code_bits is None or count < 1:
        return []
    most = bits_for(size)
    least = max(2 * most / LEAST, 8 * (2 * size + HEAD) / count)
    if least <= code_bits <= most:
        return []
    room = f"{least:.3g} to {most} bits" if least <= most else f"{most} bits, no fewer"
    return [f"code_bits {code_bits:g}: {count} codes of {size} centroids take {room} each"]


@dataclass(frozen=True)
class Clustered:
    """codebook (k, d) and codes (n,)."""

    codebook: Tensor
    codes: Tensor


def shrink(
    points: Tensor,
    start: Clustered,
    weights: Tensor | None,
    rows: int,
    code_bits: float,
) -> Clustered:
    """The least weighted error that was found for codes of at most `code_bits` bits, on the mean,
    as they are stored: frequencies and all.

    points (n, d) in rows of equal length, clustered as `start`; weights as in `kmeans.fit`. The
    price of a bit is searched between one that is too low and one that is not, by regula falsi in
    logarithms; each try starts from `start`. Raises InputError where no price is high enough.
    """
    size = len(start.codebook)
    most = most_code_bytes(len(points), size, code_bits)

    def excess(found: Clustered) -> float:
        return log(len(encode(found.codes.view(rows, -1), size)) / most)

    def at(price: float) -> tuple[Clustered, float]:
        made = constrain(points, start.codebook, start.codes, price, weights=weights, rounds=ROUNDS)
        found = Clustered(*made)
        return found, excess(found)

    if most >= packed_size(len(points), bits_for(size)) or (over := excess(start)) <= 0:
        return start
    high = log(FIRST_PRICE * _mean_error(points, start, weights))
    low, last = high - 4 * GROWTH, high + LAST_PRICE  # `over` is about what a price near 0 leaves
    found, under = at(exp(high))
    while under > 0:
        if high > last:
            raise InputError(f"{code_bits:g} bits a code are too few for {len(points)} codes")
        low, over, high = high, under, high + GROWTH
        found, under = at(exp(high))
    for _ in range(TRIES):
        if under >= log(1 - CLOSE):
            break
        share = min(0.9, max(0.1, (over - CLOSE / 2) / (over - under)))
        middle = low + share * (high - low)
        tried, left = at(exp(middle))
        if left <= 0:
            found, under, high = tried, left, middle
        else:
            low, over = middle, left
    return found


def _mean_error(points: Tensor, found: Clustered, weights: Tensor | None) -> float:
    """Of a point, weighted; above 0."""
    error = (points - found.codebook[found.codes.long()]).double().square()
    if weights is not None:
        error *= weights[:, None] if weights.ndim == 1 else weights
    return max(float(error.sum()) / len(points), 1e-30)
