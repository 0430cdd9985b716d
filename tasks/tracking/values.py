"""Nested results as the flat lists of names and numbers that MLflow keeps. Pure."""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

Value = tuple[str, float, int]  # name, value, step


def curve(table: pd.DataFrame | None) -> list[Value]:
    """Every number of a training curve with its step; groups are told apart by name."""
    if table is None:
        return []
    columns = [c for c in table.select_dtypes("number") if c != "step"]
    group = table["group"].astype(str) + "/" if "group" in table else [""] * len(table)
    return [
        (f"train/{name}{column}", value, int(step))
        for column in columns
        for name, value, step in zip(group, table[column], table["step"], strict=True)
        if not math.isnan(value)
    ]


def scalars(node: Any, prefix: str = "") -> list[Value]:
    """The numbers of a JSON object, nested names joined by dots."""
    numbers = []
    for name, value in flat(node, prefix):
        if isinstance(value, int | float) and not isinstance(value, bool):
            numbers.append((name, float(value), 0))
    return numbers


def flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of nested mappings; list items go by their `name`, else position."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from flat(value, f"{prefix}{name}.")
    elif isinstance(node, list) and node and all(isinstance(item, dict) for item in node):
        for i, item in enumerate(node):
            yield from flat(item, f"{prefix}{item.get('name', i)}.")
    else:
        yield prefix.removesuffix("."), node
