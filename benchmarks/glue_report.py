"""Statistics over seeds and the Markdown tables of benchmarks/glue.py."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.glue_cells import Row, Spec, Table
from benchmarks.markdown import table
from compress.metrics import drop

Results = Sequence[Mapping[str, Any]]  # of cells, as glue_run keeps them
MINUS = "−"


@dataclass(frozen=True)
class Line:
    """One row of one task: scores, and drops against uncompressed, of the seeds that are there."""

    scores: dict[int, float]
    drops: list[float]
    changes: list[float]  # against the row that it stands on, seed by seed
    bytes: float
    ratio: float
    minutes: float
    model: float  # the score of the row's own model, uncompressed
    distortion: float | None = None
    empty: float | None = None
    before: float | None = None  # the score without finetuning, where there is one group

    @property
    def score(self) -> float:
        return statistics.mean(self.scores.values())

    @property
    def drop(self) -> float | None:
        return statistics.mean(self.drops) if self.drops else None

    @property
    def change(self) -> float | None:
        return statistics.mean(self.changes) if self.changes else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds; None of a single one."""
        return statistics.stdev(self.scores.values()) if len(self.scores) > 1 else None


Lines = Mapping[tuple[str, str], Line]  # by task and row


def lines(spec: Spec, results: Results) -> dict[tuple[str, str], Line]:
    """What there is of every task and row, in the order of the spec."""
    by_row: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
    for result in results:
        by_row.setdefault((result["task"], result["row"]), {})[result["seed"]] = result
    scores = {key: {s: r["score"] for s, r in found.items()} for key, found in by_row.items()}
    made = {}
    for task in spec.tasks:
        for row in spec.rows:
            found = by_row.get((task.name, row.name))
            if not found:
                continue
            own = dict(sorted(scores[task.name, row.name].items()))
            dense = scores.get((task.name, spec.rows[0].name), {})
            below = scores.get((task.name, row.on or spec.rows[0].name), {})
            metric = next(iter(found.values()))["metric"]
            made[task.name, row.name] = Line(
                scores=own,
                drops=[drop(metric, dense[s], own[s]) for s in own if s in dense],
                changes=[-drop(metric, below[s], own[s]) for s in own if s in below],
                bytes=_mean(found, "bytes") or 0.0,
                ratio=statistics.mean(
                    r["uncompressed"]["bytes"] / r["bytes"] for r in found.values()
                ),
                minutes=(_mean(found, "seconds") or 0.0) / 60,
                model=statistics.mean(r["uncompressed"]["score"] for r in found.values()),
                distortion=_mean(found, "distortion"),
                empty=_mean(found, "empty"),
                before=_before(found),
            )
    return made


def _before(found: Mapping[int, Mapping[str, Any]]) -> float | None:
    told = [_untrained(result) for result in found.values()]
    known = [score for score in told if score is not None]
    return statistics.mean(known) if len(known) == len(told) else None


def _untrained(result: Mapping[str, Any]) -> float | None:
    """The score with all groups compressed and nothing trained: that of a single group, else told
    apart from them."""
    groups = result.get("groups", ())
    own = groups[0] if len(groups) == 1 else result
    known: float | None = own.get("score_before_finetune")
    return known


def _mean(found: Mapping[int, Mapping[str, Any]], name: str) -> float | None:
    values = [r[name] for r in found.values() if r.get(name) is not None]
    return statistics.mean(values) if values else None


def render(spec: Spec, results: Results) -> str:
    """Scores of all rows on all tasks, then a table for each task with what was run where."""
    found = lines(spec, results)
    tasks = [task for task in spec.tasks if any(name == task.name for name, _ in found)]
    parts = ["### All tasks: score (drop against uncompressed)", overview(spec, found)]
    for task in tasks:
        own = [result for result in results if result["task"] == task.name]
        parts += [
            f"### {task.label or task.name}",
            provenance(own),
            details(spec, found, task.name),
        ]
    return "\n\n".join(parts)


def overview(spec: Spec, found: Lines) -> str:
    """A column for each task, and the mean drop of the rows that are there on all of them."""
    tasks = [task for task in spec.tasks if any(name == task.name for name, _ in found)]
    body = []
    for row in _shown(spec.rows, found):
        here = [found.get((task.name, row.name)) for task in tasks]
        known = [line for line in here if line]
        drops = [line.drop for line in known if line.drop is not None]
        whole = len(drops) == len(tasks)
        body.append(
            [
                row.label or row.name,
                f"{statistics.mean(line.ratio for line in known):.1f}",
                *(f"{x.score:.1f} ({_number(x.drop, 'z.1f')})" if x else "" for x in here),
                _number(statistics.mean(drops), "z.1f") if whole else "",
            ]
        )
    head = ["", "times smaller", *(task.label or task.name for task in tasks), "mean drop"]
    return table(head, body)


def details(spec: Spec, found: Lines, task: str) -> str:
    """Every column for one task."""
    names = {row.name: row.label or row.name for row in spec.rows}
    body = []
    for row in _shown(spec.rows, {key: 0 for key in found if key[0] == task}):
        line = found[task, row.name]
        change = ""
        if row.on and line.change is not None:
            change = f"{_number(line.change, '+.2f')} ({names[row.on]})"
        low, high = min(line.scores.values()), max(line.scores.values())
        body.append(
            [
                row.label or row.name, f"{line.score:.2f}", f"{low:.2f} to {high:.2f}",
                _number(line.deviation, ".2f"), str(len(line.scores)),
                _number(line.drop, "z.2f"), change, _number(line.before, ".2f"),
                f"{line.bytes / 1e6:.3f}", f"{line.ratio:.2f}", _number(line.empty, ".0f"),
                _number(line.distortion, ".4f"), f"{line.minutes:.1f}",
            ]
        )  # fmt: skip
    head = ["", "score", "from, to", "std", "seeds", "drop", "change (against)",
            "before finetuning", "MB", "ratio",
            "empty at first", "distortion", "minutes"]  # fmt: skip
    return table(head, body)


def some(spec: Spec, found: Lines, wanted: Table) -> str:
    """The rows of one question: distortion and score on every task, and how both go together."""
    rows = [row for row in _shown(spec.rows, found) if row.name in wanted.rows]
    tasks = [t for t in spec.tasks if any((t.name, row.name) in found for row in rows)]
    if not tasks:
        return "Not measured yet."
    body = []
    for row in rows:
        here = [found.get((task.name, row.name)) for task in tasks]
        known = [line for line in here if line]
        empty = [line.empty for line in known if line.empty is not None]
        drops = [line.drop for line in known if line.drop is not None]
        whole = len(known) == len(tasks)
        body.append(
            [
                row.label or row.name,
                f"{statistics.mean(line.bytes for line in known) / 1e6:.3f}",
                f"{statistics.mean(empty):.0f}" if empty else "",
                *(_both(line, wanted.model) for line in here),
                f"{statistics.mean(line.score for line in known):.2f}" if whole else "",
                _number(statistics.mean(drops), "z.2f") if whole and drops else "",
            ]
        )
    head = ["", "MB", "empty at first", *(task.label or task.name for task in tasks), "mean score",
            "mean drop"]  # fmt: skip
    said = "Model before, distortion" if wanted.model else "Distortion"
    text = table(head, body) + f"\n\n{said}: score ± standard deviation."
    if wanted.correlation:
        measured = [(task, _correlation(found, task.name, rows)) for task in tasks]
        told = [f"{t.label or t.name} {_number(v, '.2f')}" for t, v in measured if v is not None]
        text += f"\n\nRank correlation of distortion and score: {', '.join(told) or 'unknown'}."
    return text


def _both(line: Line | None, model: bool) -> str:
    if line is None:
        return ""
    before = f"{line.model:.1f}, " if model else ""
    spread = "one seed" if line.deviation is None else f"± {line.deviation:.1f}"
    return f"{before}{_number(line.distortion, '.4f')}: {line.score:.1f} {spread}"


def _correlation(found: Lines, task: str, rows: Sequence[Row]) -> float | None:
    """With the scores of those seeds that all rows have."""
    from scipy.stats import spearmanr

    here = [found[task, row.name] for row in rows if (task, row.name) in found]
    seeds = set.intersection(*(set(line.scores) for line in here)) if here else set()
    pairs = [
        (line.distortion, sum(line.scores[seed] for seed in seeds))
        for line in here
        if line.distortion is not None
    ]
    if (
        not seeds
        or len(pairs) < 4
        or any(len(set(values)) == 1 for values in zip(*pairs, strict=True))
    ):
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def provenance(own: Results) -> str:
    """Which rows, seeds, commits and machines a table comes from."""

    def all_of(name: str) -> str:
        return ", ".join(sorted({str(result[name]) for result in own}))

    data = sorted({result["data"]["held_out_sha256"] for result in own})
    counts = sorted({tuple(result["data"]["rows"].values())[:2] for result in own})
    cut = any(result["data"]["rows"]["train"] == result["max_train_rows"] for result in own)
    trained = " or ".join(f"{train:,} rows, scored on {held:,}" for train, held in counts)
    return (
        f"Trained on {trained}{' (a subset of the training rows)' if cut else ''}; metric "
        f"{all_of('metric')}; data {', '.join(name[:12] for name in data)}; seeds "
        f"{all_of('seed')}; commit {all_of('commit')}; {all_of('hardware')}, threads "
        f"{all_of('threads')}, torch {all_of('torch')}."
    )


def _shown(rows: Sequence[Row], found: Mapping[tuple[str, str], Any]) -> list[Row]:
    there = {row for _, row in found}
    return [row for row in rows if row.name in there]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form).replace("-", MINUS)
