"""Codebooks on real weights: the engine against its peers, and with each of its parts taken out.

    python -m benchmarks.kmeans                      all tables, about 25 minutes on 2 cores
    python -m benchmarks.kmeans intact --quick       one table, few cells, one seed
    python -m benchmarks.kmeans --draw               tables and pictures from the JSON that is there

Peers that are not installed are left out (faiss-cpu is in the extra `bench`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks import kmeans_layers as layers
from benchmarks import kmeans_plots, kmeans_report
from benchmarks.kmeans_gpu import gpu
from benchmarks.kmeans_methods import engine, fairseq_iteration, methods
from benchmarks.markdown import fill
from compress.kmeans.distance import sweep
from compress.kmeans.points import prepare

INTACT = [(name, block, 256) for name in layers.LAYERS for block in (4, 8, 16)]
INTACT += [(name, 8, 1024) for name in ("attention", "FFN in", "FFN out", "convolution")]
PARTS = (0.05, 0.5, 0.9)
ZEROED = [
    (name, 8, 256, part)
    for name in ("attention", "FFN in", "FFN out", "embedding", "convolution")
    for part in PARTS
]
ZEROED += [
    ("FFN in", block, k, part) for block, k in ((4, 256), (16, 256), (8, 1024)) for part in PARTS
]
ABLATIONS: dict[str, dict[str, Any]] = {
    "all parts": {},
    "even pre-assignment": {"seeding": "partition-even"},
    "k-means++ for the pre-assignment": {"seeding": "kmeans++"},
    "random for the pre-assignment": {"seeding": "random"},
    "perturb for the resolution": {"empties": "perturb"},
    "random and perturb": {"seeding": "random", "empties": "perturb"},
    "no consolidation": {"consolidation": "off"},
    "no over-relaxation": {"relaxation": 1.0},
    "no sample": {"sample": None},
    "with anneal 60": {"anneal": 60},
}
SLOW = {"sklearn k-means++", "sklearn random"}  # 15 s a fit on the embedding

# Each in a process of its own: the OpenMP runtimes of two libraries slow each other down, and the
# peak of a process never falls. VmHWM, because ru_maxrss is inherited from the parent.
PEAK = """
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
"""
FIT = (
    PEAK
    + """
import json
from benchmarks import kmeans_layers as layers
from benchmarks.markdown import fill
from benchmarks.kmeans_methods import engine, methods
run = methods().get({name!r}) or (lambda x, k, seed: engine(x, k, seed, sample=None))
x = layers.points(layers.STACK, 8)
run(x[:20000], 256, 0)
before = peak()
found = [run(x, 256, seed) for seed in range({seeds})]
print(json.dumps([[o.seconds, o.processor] for o in found] + [peak() - before]))
"""
)
LARGE = (
    PEAK
    + """
import json, time, torch
from compress.kmeans import fit
weight = torch.randn({rows}, 768, generator=torch.Generator().manual_seed(0))
fit(weight[:100].reshape(-1, 8), 256)
before, started = peak(), time.perf_counter()
fit(weight.reshape(-1, 8), 256)
print(json.dumps([weight.numel() // 8, time.perf_counter() - started, peak() - before]))
"""
)


def compare(x: torch.Tensor, k: int, seeds: int, iterations: int = 15) -> dict[str, Any]:
    """Medians over the seeds for every method."""
    found = {}
    for name, run in methods().items():
        found[name] = median([asdict(run(x, k, seed, iterations)) for seed in range(seeds)])
    return found


def median(outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    merged = {}
    for key in outcomes[0]:
        values = [o[key] for o in outcomes if o[key] is not None]
        merged[key] = statistics.median(values) if values else None
    merged["failed"] = any(o["failed"] for o in outcomes)
    return merged


def intact(seeds: int, quick: bool) -> list[dict[str, Any]]:
    cells = INTACT[:4] if quick else INTACT
    return [
        {"cell": f"{name}, {block}, {k}", "methods": compare(layers.points(name, block), k, seeds)}
        for name, block, k in progress(cells)
    ]


def zeroed(seeds: int, quick: bool) -> list[dict[str, Any]]:
    cells = ZEROED[:3] if quick else ZEROED
    return [
        {
            "cell": f"{name}, {block}, {k}, {part:.0%} zero",
            "methods": compare(layers.points(name, block, part), k, seeds),
        }
        for name, block, k, part in progress(cells)
    ]


def converged(seeds: int, quick: bool) -> list[dict[str, Any]]:
    """300 iterations; the engine stops earlier when it may."""
    cells = ("attention",) if quick else ("attention", "FFN in", "convolution")
    return [
        {"cell": f"{name}, 8, 256", "methods": compare(layers.points(name, 8), 256, seeds, 300)}
        for name in progress(cells)
    ]


def ablation(seeds: int, quick: bool) -> list[dict[str, Any]]:
    cells = [("attention", 0.0), ("attention", 0.5), ("FFN out", 0.0), ("FFN out", 0.9)]
    rows = []
    for name, part in progress(cells[:2] if quick else cells):
        x = layers.points(name, 8, part)
        found = {
            label: median([asdict(engine(x, 256, seed, **options)) for seed in range(seeds)])
            for label, options in ABLATIONS.items()
        }
        rows.append({"cell": f"{name}, {part:.0%} zero", "methods": found})
    return rows


def speed(seeds: int, quick: bool) -> dict[str, Any]:
    """One fit of 294,912 blocks of 8, k 256; methods take turns, so that they share the load."""
    names = [name for name in methods() if not (quick and name in SLOW)]
    runs: dict[str, list[list[float]]] = {name: [] for name in [*names, "shrinkflow, no sample"]}
    memory = {}
    for turn in progress(range(3)):
        for name in runs:
            if turn == 0 or name not in SLOW:
                count = 1 if name in SLOW else seeds
                *found, memory[name] = child(FIT.format(name=name, seeds=count))
                runs[name] += found
    x = layers.points(layers.STACK, 8)
    part = x[: len(x) // 8]
    iteration = statistics.median(fairseq_iteration(part, 256) for _ in range(2)) * 8
    return {
        "seconds": {name: statistics.median(r[0] for r in rows) for name, rows in runs.items()},
        "processor": {name: statistics.median(r[1] for r in rows) for name, rows in runs.items()},
        "fairseq iteration, broadcast": iteration,
        "engine pass": pass_seconds(x),
        "memory": memory,
    }


def child(script: str) -> Any:
    """What a script prints as JSON, in a process of its own."""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def pass_seconds(x: torch.Tensor) -> float:
    """Seconds of one assignment and accumulation over all points."""
    points = prepare(x[None])
    row = torch.arange(256)
    centroids = points.normalized(torch.zeros_like(row), row)[None]
    times = []
    for _ in range(15):
        started = time.perf_counter()
        sweep(points, centroids)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def large(seeds: int, quick: bool) -> dict[str, Any]:
    """RoBERTa-base's embedding in shape, 50,265 x 768 at block 8: time and added peak memory."""
    points, seconds, added = child(LARGE.format(rows=5026 if quick else 50265))
    return {"points": points, "seconds": seconds, "memory": added}


TABLES = {
    "intact": intact,
    "zeroed": zeroed,
    "converged": converged,
    "ablation": ablation,
    "speed": speed,
    "large": large,
    "gpu": gpu,
}


def progress(items: Any) -> Any:
    items = list(items)
    for i, item in enumerate(items):
        print(f"\r{i + 1}/{len(items)} {item}          ", end="", file=sys.stderr, flush=True)
        yield item
    print(file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("tables", nargs="*", help=", ".join(TABLES), default=[])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few cells")
    parser.add_argument("--draw", action="store_true", help="only draw and print what is there")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    arguments = parser.parse_args()
    if unknown := set(arguments.tables) - set(TABLES):
        parser.error(f"no such table: {', '.join(sorted(unknown))}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "kmeans.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for name in [] if arguments.draw else (arguments.tables or TABLES):
        results[name] = TABLES[name](arguments.seeds, arguments.quick)
        results.setdefault("machine", {})[name] = {
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "processor": platform.machine(),
            "torch": torch.__version__,
            "seeds": arguments.seeds,
            "weights": layers.available(),
        }
        file.write_text(json.dumps(results, indent=1) + "\n")
    text = kmeans_report.render(results)
    print(text)
    page = arguments.out.parent / "benchmarks.md"
    if page.is_file():
        fill(page, "benchmarks.kmeans", text)
    for picture in kmeans_plots.draw(results, arguments.out):
        print(f"wrote {picture}")


if __name__ == "__main__":
    main()
