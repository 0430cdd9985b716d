"""What stages write beside models: metrics, tables, timings. Whole or not at all, sorted, plain."""

import csv
import json
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compress.atomic import new_file
from compress.errors import InputError
from tasks.workspace import Workspace

DIGITS = 10  # significant; enough to compare runs, few enough to read


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """A JSON object, one key a line; NaN and infinity are refused."""
    text = json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False)
    with new_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, empty where the file is missing. InputError where it is something else."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); remove it and run again") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} is damaged (no JSON object); remove it and run again")
    return found


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """A CSV file with a header; `columns` come first, whatever else the rows hold follows."""
    names = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    with new_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: _short(v) for k, v in row.items()} for row in rows)


@contextmanager
def timed(workspace: Workspace, stage: str) -> Iterator[dict[str, Any]]:
    """Writes when the stage began and ended, its seconds and its peak memory, once it is done.

    The body may add what else it measured. Nothing of it is an output that DVC compares.
    """
    started, start = time.perf_counter(), time.time()
    _reset_peak()
    more: dict[str, Any] = {}
    yield more
    seconds = time.perf_counter() - started
    facts = {
        "start": start,
        "end": start + seconds,
        "seconds": seconds,
        "peak_memory": peak_memory(),
    }
    path = workspace.timings(stage)
    write_json(path, facts | more)
    (path.parent / ".gitignore").write_text("*\n", encoding="utf-8")


def _reset_peak() -> None:
    """Linux forgets the peak so far when told to, so that each stage has its own."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory() -> int:
    """Bytes of the most memory that was resident since the last reset, or else ever."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _short(value: Any) -> Any:
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else value
