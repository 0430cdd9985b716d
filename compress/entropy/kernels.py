"""The loops of rANS (Duda 2013, section 3.3). The state is a number in [2^31, 2^63), in int64.

A code with the frequency f of 2^p, and frequencies that add up to b before it, takes the state x to
(x // f) 2^p + x mod f + b. 32 bits leave the state where it would grow too large, and come back in
decoding where it is too small.
"""

# The kernels are plain numpy code to a type checker, which cannot see their types.
# mypy: disable-error-code="no-untyped-def"

from collections.abc import Callable
from functools import cache
from typing import Any

from compress.kmeans.backend import backend, compiled

START = 1 << 31


@cache
def kernel(function: Callable[..., Any]) -> Any:
    """Compiled where the compiler works; else the same bytes by plain Python, slowly."""
    return compiled(function) if backend("cpu") == "numba" else function


def encode_words(symbols, classes, frequencies, starts, precision, words):
    """Fills `words` uint32 from the last of `symbols` (rows, n) to the first. classes (rows,);
    frequencies and starts (classes, size). Returns the final state and the words used."""
    state, used = START, 0
    for row in range(len(symbols) - 1, -1, -1):
        own, begin = frequencies[classes[row]], starts[classes[row]]
        for i in range(symbols.shape[1] - 1, -1, -1):
            code = symbols[row, i]
            if state >= own[code] << (63 - precision):
                words[used] = state & 0xFFFFFFFF
                used += 1
                state >>= 32
            state = (state // own[code] << precision) + state % own[code] + begin[code]
    return state, used


def decode_words(codes, classes, state, words, symbols, frequencies, starts, precision):
    """Fills `codes` (rows, n); symbols (classes, 2^p) has the code of each slot. Returns the state
    it ends with and the words used, one too many where they run out."""
    mask, used = (1 << precision) - 1, 0
    for row in range(len(codes)):
        which = classes[row]
        for i in range(codes.shape[1]):
            slot = state & mask
            code = symbols[which, slot]
            codes[row, i] = code
            own = frequencies[which, code]
            state = own * (state >> precision) + slot - starts[which, code]
            if state < START:
                if used == len(words):
                    return state, used + 1
                state = (state << 32) | words[used]
                used += 1
    return state, used
