"""What the engine has to reach, and what benchmarks/kmeans.py's JSON says it reaches."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

ENGINE, ANNEALED, RULE = "shrinkflow", "shrinkflow, anneal 60", "fairseq's rule"
SKLEARN, FAISS = "sklearn k-means++", "faiss"
Row = tuple[str, str, float, bool]  # what, target, measured, reached


def targets(results: dict[str, Any]) -> list[list[str]]:
    """Rows of a table: what, target, measured, reached; tables that are missing are left out."""
    rows: list[Row] = []
    for name, check in (
        ("intact", _intact),
        ("zeroed", _zeroed),
        ("speed", _speed),
        ("large", _large),
    ):
        if results.get(name):
            rows += check(results[name])
    return [
        [what, target, f"{v:,.4g}", "yes" if good else "**no**"] for what, target, v, good in rows
    ]


def _ratio(row: dict[str, Any], name: str) -> float:
    return row["methods"][name]["distortion"] / row["methods"][SKLEARN]["distortion"]


def _intact(rows: list[dict[str, Any]]) -> Iterator[Row]:
    ratios = [_ratio(row, ENGINE) for row in rows]
    of = f"distortion, of {SKLEARN}'s"
    yield _most(f"{of}: mean of the intact table", 0.993, statistics.mean(ratios))
    yield _most(f"{of}: worst intact cell", 0.998, max(ratios))
    for row in rows:
        if row["cell"] == "attention, 8, 256":
            yield _most(f"{of}: annealed, attention, block 8", 0.985, _ratio(row, ANNEALED))


def _zeroed(rows: list[dict[str, Any]]) -> Iterator[Row]:
    many = [row for row in rows if "50%" in row["cell"] or "90%" in row["cell"]]
    ours = [row["methods"][ENGINE] for row in many]
    rule = [row["methods"][RULE] for row in many]
    yield _most("50 and 90 % zeroed: worst distortion, of k-means++'s", 1.0,
                max(_ratio(row, ENGINE) for row in many))  # fmt: skip
    yield _most("... dead centroids at the end", 0, max(o["dead"] for o in ours))
    yield _most("... resolution rounds", 4, max(o["rounds"] for o in ours))
    for key, text, factor in (
        ("total_empty", "empty clusters in all, fairseq's rule against the engine", 100),
        ("rounds", "resolution sweeps, fairseq's rule against the engine", 8),
    ):
        # where the engine has none at all, one is counted: a ratio to nothing says nothing
        found = min(r[key] / max(1, o[key]) for r, o in zip(rule, ours, strict=True))
        yield (f"... {text}, least ratio", f"at least {factor}", found, found >= factor)


def _speed(found: dict[str, Any]) -> Iterator[Row]:
    seconds = found["seconds"]
    if FAISS in seconds:
        yield _most("one fit, seeding included, of faiss's time", 1.0,
                    seconds[ENGINE] / seconds[FAISS])  # fmt: skip
    yield _most("one fit, MB beyond the input", 50, found["memory"][ENGINE])
    ratio = found["fairseq iteration, broadcast"] / found["engine pass"]
    yield ("an iteration, fairseq's broadcast against the engine", "at least 200", ratio,
           ratio >= 200)  # fmt: skip


def _large(found: dict[str, Any]) -> Iterator[Row]:
    yield _most("RoBERTa-base's embedding, seconds", 15, found["seconds"])
    yield _most("RoBERTa-base's embedding, MB beyond the weight", 1000, found["memory"])


def _most(what: str, limit: float, value: float) -> Row:
    return what, f"at most {limit:g}", value, value <= limit
