"""One cell of benchmarks/glue.py, from rows of text to a score; what cells share is kept.

data/TASK-KEY/                 tokenized rows
teachers/TASK-SEED-KEY/        the finetuned model, its score, what was measured for budgets
work/KEY/                      a cell that is not finished
cells/KEY.json                 one that is
"""

import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from benchmarks.glue_cells import Cell
from compress import evaluation, training
from compress.atomic import new_file, new_folder
from compress.config import Params
from compress.ipq import Quantized, quantize
from compress.sources import model_folder

HUB = "glue/"  # sources of this form are folders of --data, where it is given


@dataclass(frozen=True)
class Store:
    """The folder with all that is kept; `data`: the folder with GLUE's parquet files, if any."""

    root: Path
    data: Path | None = None

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """What was measured of an equal cell."""
        return read(self.root / "cells" / f"{cell.key}.json")

    def finish(self, cell: Cell, result: Mapping[str, Any]) -> None:
        """Keeps the result; the work goes."""
        write(self.root / "cells" / f"{cell.key}.json", result)
        shutil.rmtree(self.work(cell), ignore_errors=True)

    def work(self, cell: Cell) -> Path:
        return self.root / "work" / cell.key[:16]

    def teacher(self, cell: Cell) -> Path:
        return self.root / "teachers" / f"{cell.task}-{cell.seed}-{cell.teacher_key[:16]}"

    def rows(self, cell: Cell) -> Path:
        return self.root / "data" / f"{cell.task}-{cell.data_key[:16]}"

    def alone(self, folder: Path, *, wait: bool) -> FileLock:
        """Of all processes one makes `folder`; the others wait, or Timeout is raised in them."""
        (self.root / "locks").mkdir(parents=True, exist_ok=True)
        return FileLock(self.root / "locks" / folder.name, timeout=-1 if wait else 0)


def run(cell: Cell, store: Store) -> dict[str, Any] | None:
    """The result of a cell, from the store where it is there; None while another process is at it
    or at its teacher. Raises ShrinkflowError."""
    try:
        with store.alone(store.work(cell), wait=False):
            return store.result(cell) or _measured(cell, store)
    except Timeout:
        return None


def _measured(cell: Cell, store: Store) -> dict[str, Any]:
    params = cell.params
    data = prepared(cell, params, store)
    teacher = trained(cell, params, data, store)
    model = store.teacher(cell) / "model"
    result = {
        "key": cell.key, "task": cell.task, "row": cell.row, "seed": cell.seed,
        "metric": params.data.metric, "model": params.model.source,
        "score": teacher["score"], "bytes": teacher["bytes"], "seconds": teacher["seconds"],
        "uncompressed": {name: teacher[name] for name in ("score", "bytes", "seconds")},
        "data": _facts(data), "max_train_rows": params.data.max_rows,
        **machine(), "params": cell.raw,
    }  # fmt: skip
    if cell.kind != "uncompressed":
        work = store.work(cell)

        def compressed(out: Path, finetune: bool) -> tuple[Any, float]:
            found = quantize(
                params,
                teacher_dir=model,
                data_dir=data,
                out_dir=out / "compressed",
                work_dir=out,
                measured_dir=store.teacher(cell),
                finetune=finetune,
            )
            return found, evaluation.evaluate(out / "compressed", data, params.data.metric)["score"]

        found, score = compressed(work, cell.kind == "ipq")
        result |= {"score": score, "bytes": found.bytes, "seconds": found.seconds}
        result |= _quality(found)
        if cell.kind == "ipq" and len(found.groups) > 1:  # a single one tells it itself
            result["score_before_finetune"] = compressed(work / "untrained", False)[1]
    store.finish(cell, result)
    return result


def prepared(cell: Cell, params: Params, store: Store) -> Path:
    """The folder with the tokenized rows of a cell."""
    folder = store.rows(cell)
    with store.alone(folder, wait=True):
        if not (folder / "data.json").is_file():
            from compress.data import prepare  # needs `datasets`, which prepared rows do not

            with new_folder(folder, holds="data.json") as temporary:
                prepare(_located(params, store.data), Path(), temporary)
    return folder


def trained(cell: Cell, params: Params, data: Path, store: Store) -> dict[str, Any]:
    """Score, bytes and seconds of the finetuned model of a cell, which is made where it must be."""
    folder = store.teacher(cell)
    known = read(folder / "teacher.json")
    if known is not None:
        return known
    with store.alone(folder, wait=False):
        started = time.perf_counter()
        source = model_folder(params.model.source, params.model.revision, Path())
        if params.pretrain.enabled:
            training.pretrain(params, Path(), data, folder / "pretrained", folder / "pretraining")
            source = folder / "pretrained"
        training.finetune(params, source, data, folder / "model", folder / "training")
        score = evaluation.evaluate(folder / "model", data, params.data.metric)["score"]
        found = {
            "score": score,
            "bytes": (folder / "model" / "model.safetensors").stat().st_size,
            "seconds": time.perf_counter() - started,
        }
        write(folder / "teacher.json", found)
        for name in ("pretrained", "pretraining", "training"):
            shutil.rmtree(folder / name, ignore_errors=True)
    return found


def _located(params: Params, data: Path | None) -> Params:
    """The same with the files of `data` in place of the hub."""
    source = params.data.source
    if data is None or not source.startswith(HUB):
        return params
    there = str((data / source.removeprefix(HUB)).resolve())
    return params.model_copy(update={"data": params.data.model_copy(update={"source": there})})


def _quality(found: Quantized) -> dict[str, Any]:
    """Distortion, the mean over all weights; clusters that were empty at first; the groups."""
    reports = found.reports.values()
    counts = [report["bytes"] * 8 / report["bits_per_weight"] for report in reports]
    errors = [report["relative_distortion"] for report in reports]
    empty = [report["empty_initial"] for report in reports if "empty_initial" in report]
    total = sum(count * error for count, error in zip(counts, errors, strict=True))
    return {
        "distortion": total / sum(counts),
        "empty": sum(empty) if empty else None,
        "dead": sum(report.get("dead", 0) for report in reports),
        "groups": [{k: v for k, v in group.items() if k != "curve"} for group in found.groups],
    }


def _facts(data: Path) -> dict[str, Any]:
    found = read(data / "data.json") or {}
    return {name: found[name] for name in ("rows", "sha256", "held_out_sha256")}


@cache
def machine() -> dict[str, Any]:
    """Commit and hardware: what a result may depend on beside its params."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "commit": commit(),
        "hardware": gpu or f"{_processor()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def commit() -> str:
    """Of this repository, with `+` where files are changed; `unknown` where git cannot tell."""
    root = Path(__file__).parent.parent
    commands = (["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "-uno"])
    try:
        name, changed = (
            subprocess.run(c, cwd=root, capture_output=True, text=True, check=True).stdout
            for c in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.strip()[:12] + ("+" if changed.strip() else "")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def read(path: Path) -> dict[str, Any] | None:
    """A JSON file; None where it is not there."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write(path: Path, values: Mapping[str, Any]) -> None:
    """A JSON file that appears whole or not at all."""
    with new_file(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
