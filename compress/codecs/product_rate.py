"""Codes of a product codec that fit a number of bytes on disk, entropy-coded."""

from torch import Tensor

from compress.codecs.product_price import HEAD, Clustered, sample_step, within
from compress.entropy import LEAST, PAYS, encode
from compress.errors import InputError
from compress.kmeans.entropy_constrained import constrain
from compress.packing import bits_for, packed_size

ROUNDS = 8  # of a try: codes get shorter in each
FIRST_PRICE = 0.1  # of a bit, in mean errors of a block


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


def shrink(
    points: Tensor,
    start: Clustered,
    weights: Tensor | None,
    rows: int,
    code_bits: float,
) -> Clustered:
    """The least weighted error that was found for codes of at most `code_bits` bits, on the mean,
    as they are stored: frequencies and all.

    points (n, d) in rows of equal length, clustered as `start`; weights as in `kmeans.fit`. Every
    price of a bit that is tried starts from `start`. Raises InputError where none is high enough.
    """
    size, codes = len(start.codebook), start.codes.view(rows, -1)
    most = most_code_bytes(len(points), size, code_bits)
    if most >= packed_size(len(points), bits_for(size)) or len(encode(codes, size)) <= most:
        return start

    def at(price: float, step: int) -> Clustered:
        part, own, held = points, weights, codes[::step]
        if step > 1:
            part = points.view(rows, -1, points.shape[1])[::step].flatten(0, 1)
            if own is not None and len(own) == len(points):
                own = own.view(rows, -1, *own.shape[1:])[::step].flatten(0, 1)
        made = constrain(part, start.codebook, held.flatten(), price, weights=own, rounds=ROUNDS)
        return Clustered(made[0], made[1].view_as(held))

    price = FIRST_PRICE * _mean_error(points, start, weights)
    found = within(at, size, most, price, sample_step(points.numel()))
    if found is None:
        raise InputError(f"{code_bits:g} bits a code are too few for {len(points)} codes")
    return Clustered(found.codebook, found.codes.flatten())


def _mean_error(points: Tensor, found: Clustered, weights: Tensor | None) -> float:
    """Of a point, weighted; above 0."""
    error = (points - found.codebook[found.codes.long()]).double().square()
    if weights is not None:
        error *= weights[:, None] if weights.ndim == 1 else weights
    return max(float(error.sum()) / len(points), 1e-30)
