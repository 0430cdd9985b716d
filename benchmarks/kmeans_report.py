"""Markdown tables of benchmarks/kmeans.py's JSON."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.kmeans_targets import targets
from benchmarks.markdown import table

REFERENCE = "sklearn k-means++"
CLUSTERS = ("initial_empty", "total_empty", "rounds", "dead")


def render(results: dict[str, Any]) -> str:
    head = ["what", "target", "measured", "reached"]
    parts = ["### Targets", table(head, targets(results))]
    for name, title in (
        ("intact", "Intact weights: relative distortion after 15 iterations"),
        ("zeroed", "Weights with zeroed blocks: relative distortion after 15 iterations"),
        ("converged", "At convergence: relative distortion after at most 300 iterations"),
    ):
        if name in results:
            parts += [f"### {title}", distortions(results[name])]
    if "zeroed" in results:
        parts += ["### Empty clusters on zeroed blocks", clusters(results["zeroed"])]
    if "ablation" in results:
        parts += ["### Each part on and off", ablations(results["ablation"])]
    if "speed" in results:
        parts += ["### One fit of 294,912 blocks of 8, k 256", speed(results["speed"])]
    if "large" in results:
        large = results["large"]
        parts.append(
            f"RoBERTa-base's embedding in shape ({large['points']:,} blocks of 8, k 256): "
            f"{large['seconds']:.1f} s, {large['memory']:.0f} MB beyond the weight."
        )
    if results.get("gpu"):
        found = ", ".join(f"{name}: {value}" for name, value in results["gpu"].items())
        parts += ["### GPU, seconds", found]
    return "\n\n".join(parts)


def distortions(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0]["methods"])
    body, ratios = [], []
    for row in rows:
        found = row["methods"]
        line = [row["cell"]] + [f"{found[n]['distortion']:.4f}" for n in names]
        if REFERENCE in found:
            base = found[REFERENCE]["distortion"]
            pair = [found[n]["distortion"] / base for n in names[:2]]
            ratios.append(pair)
            line += [f"{p:.4f}" for p in pair]
        body.append(line)
    head = ["layer, block, k", *names]
    if ratios:
        head += ["ratio to k-means++", "annealed"]
        mean = [f"**{statistics.mean(column):.4f}**" for column in zip(*ratios, strict=True)]
        body.append(["mean", *[""] * len(names), *mean])
    return table(head, body)


def clusters(rows: list[dict[str, Any]]) -> str:
    """Empty at first / in all / resolution sweeps or rounds / dead at the end."""
    names = [n for n in rows[0]["methods"] if n != "shrinkflow, anneal 60"]
    body = []
    for row in rows:
        line = [row["cell"]]
        for name in names:
            found = row["methods"][name]
            known = [f"{found[key]:.0f}" for key in CLUSTERS if found[key] is not None]
            line.append(" / ".join(known) + (" raised" if found["failed"] else ""))
        body.append(line)
    return table(["layer", *names], body)


def ablations(rows: list[dict[str, Any]]) -> str:
    """Distortion (empty at first, rounds, dead), processor time in all."""
    names = list(rows[0]["methods"])
    body = []
    for name in names:
        line = [name]
        for row in rows:
            found = row["methods"][name]
            counts = ", ".join(f"{found[key]:.0f}" for key in ("initial_empty", "rounds", "dead"))
            line.append(f"{found['distortion']:.4f} ({counts}) {1000 * found['processor']:.0f} ms")
        body.append(line)
    return table(["", *[row["cell"] for row in rows]], body)


def speed(found: dict[str, Any]) -> str:
    ours = found["seconds"]["shrinkflow"]
    body = [
        [
            name,
            f"{seconds:.3f}",
            f"{seconds / ours:.2f}",
            f"{found['processor'][name]:.3f}",
            f"{found['memory'].get(name, 0):.0f}",
        ]
        for name, seconds in found["seconds"].items()
    ]
    text = table(["", "seconds", "of shrinkflow's", "processor seconds", "MB added"], body)
    ratio = found["fairseq iteration, broadcast"] / found["engine pass"]
    return text + (
        f"\n\nOne iteration: {1000 * found['engine pass']:.1f} ms; with fairseq's broadcast "
        f"distances {found['fairseq iteration, broadcast']:.2f} s, {ratio:.0f} times as long."
    )
