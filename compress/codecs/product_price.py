"""What a bit may cost, so that entropy-coded codes take the bytes they may and hardly less."""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log

from torch import Tensor

from compress.entropy import encode

HEAD = 64  # bytes of a stream beside frequencies and words
CLOSE = 0.005  # of the bytes: as much may be left
TRIES = 12
AIM = log(1 - CLOSE / 2)  # logarithm of the bytes over the most
REACH = 3.0  # what the price has to grow for bytes fewer by a factor, both in logarithms: about
SAMPLE = 1 << 21  # weights of the part of a large weight that the search begins with


@dataclass(frozen=True)
class Clustered:
    """codebook (k, d) and codes, integers of any shape."""

    codebook: Tensor
    codes: Tensor


At = Callable[[float, int], Clustered]


def sample_step(weights: int) -> int:
    """One of so many rows says about what the price is; 1 for all but large weights."""
    return max(1, weights // SAMPLE)


def within(at: At, size: int, most: int, price: float, step: int) -> Clustered | None:
    """Codes in [0, size) of at most `most` bytes; None where no price was high enough.

    at(price, step): what is found at a price, which is above 0, with one of `step` rows. The search
    begins at `price`, and of a large weight with some of its rows.
    """
    start = log(price)
    if step > 1:
        head = HEAD + 2 * size
        first = _search(lambda p: at(p, step), size, (most - head) / step + head, start)
        start = start if first is None else first[0]
    last = _search(lambda p: at(p, 1), size, most, start)
    return None if last is None else last[1]


def _search(
    at: Callable[[float], Clustered], size: int, most: float, price: float
) -> tuple[float, Clustered] | None:
    """(Price, what was found at it), in logarithms as all prices here. From `price` on to one on
    the other side of the aim, from then on by regula falsi."""
    low = high = best = None  # (price, logarithm of the bytes over the most)
    reach = REACH
    for _ in range(TRIES):
        found = at(exp(price))
        over = log(len(encode(found.codes, size)) / most)
        if over <= 0:
            best, high = (price, found), (price, over)
            if over >= log(1 - CLOSE):
                break
        else:
            low = price, over
        if low is None or high is None:
            price += reach * (over - AIM)
            reach *= 2
        else:
            share = (low[1] - AIM) / (low[1] - high[1])
            price = low[0] + min(0.9, max(0.1, share)) * (high[0] - low[0])
    return best
