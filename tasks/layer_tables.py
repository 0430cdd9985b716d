"""Rows of the tables that `quantize` writes, from the reports of the layers."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.layers import LayerJob

COUNTS = ("empty_initial", "empty_total", "resolution_rounds", "dead")


def layer_row(job: "LayerJob", report: Mapping[str, Any], stored: int) -> dict[str, Any]:
    """One row of layers.csv: what the layer is, its settings, its key in the layer store, and every
    number of its report; its bytes are those on disk, `stored`.

    Sorted: the report of a layer that was found in the store has its names in another order than
    that of one that has just been made, and the table must not tell.
    """
    weights = math.prod(job.shape)
    report = {**report, "bytes": stored, "bits_per_weight": 8 * stored / weights}
    numbers = {k: v for k, v in sorted(report.items()) if not isinstance(v, list) and v is not None}
    usage = report.get("usage")
    return {
        "name": job.name,
        "group": job.group,
        "method": job.settings.method,
        **({"sensitivity": job.sensitivity.kind} if job.sensitivity else {}),
        "shape": "x".join(str(size) for size in job.shape),
        "block_size": getattr(job.settings, "block_size", None),
        "codebook_size": getattr(job.settings, "codebook_size", None),
        "weights": weights,
        **numbers,
        **({"perplexity": perplexity(usage)} if usage else {}),
    }


def usage_rows(reports: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of usage.csv: how many blocks use each code of each layer."""
    return [
        {"name": name, "code": code, "count": count}
        for name, report in reports.items()
        for code, count in enumerate(report.get("usage", ()))
    ]


def totals(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Over several layers: number, weights, bytes; distortion and bits as weighted means."""
    weights = sum(row["weights"] for row in rows)
    size = sum(row["bytes"] for row in rows)
    distortion = sum(row["relative_distortion"] * row["weights"] for row in rows) / weights
    counts = {c: sum(row[c] for row in rows) for c in COUNTS if all(c in row for row in rows)}
    return {
        "layers": len(rows),
        "weights": weights,
        "layer_bytes": size,
        "bits_per_weight": 8 * size / weights,
        "relative_distortion": distortion,
        **counts,
    }


def perplexity(usage: Iterable[int]) -> float:
    """exp of the entropy of a histogram: how many codes are in use, as if evenly."""
    counts = [count for count in usage if count]
    total = sum(counts)
    return math.exp(-sum(c / total * math.log(c / total) for c in counts))
