"""Numbers as people read them."""

import math
from typing import Any


def size(count: float) -> str:
    """Bytes in decimal units, as disks and hubs show them."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            digits = 1 if count >= 10 * scale else 2
            return f"{count / scale:.{digits}f} {unit}"
    return f"{count / 1e3:.0f} kB" if count >= 1e3 else f"{count:.0f} B"


def cell(value: Any, form: str = ",.0f") -> str:
    """A value of the table of layers; a dash where the method has no such thing."""
    if isinstance(value, str):
        return value
    return "–" if value is None or math.isnan(value) else format(value, form)


def times(ratio: float) -> str:
    """`19.8×`."""
    return f"{ratio:.1f}×"


def duration(seconds: float) -> str:
    """`8.3 s`, `2 min 05 s`, `1 h 12 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds:.1f} s"
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
