"""SIGKILL at random moments of every stage, and what is found afterwards.

One pass takes a workspace through all stages: each start is killed some way into its stage, the
next one goes on. What counts is looked for after every kill and compared with an undisturbed run.
"""

import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from compress.errors import CheckpointError
from compress.layer_file import read_layer
from compress.training_state import MARKER, is_whole
from compress.verify import file_digest
from tests.flows.workspaces import started

PASS = ("prepare", "pretrain", "finetune", "quantize", "quantize", "evaluate", "register")
LAYERS = ".shrinkflow/layers/*/*.safetensors"
OUTPUTS = ("data", "pretrained", "finetuned", "compressed", "metrics", "plots")
NOT_COMPARED = ("register.json",)  # names the version in the registry
SECONDS = 300  # of one start, on a machine that is busy with other things


@dataclass
class Counts:
    """Summed over all kills. Everything but `kills` and `starts` is to be 0."""

    kills: dict[str, int] = field(default_factory=dict)
    starts: int = 0
    stages_run_again: int = 0
    layers_recomputed: int = 0
    groups_recovered_again: int = 0
    not_whole: int = 0
    damage_in_logs: int = 0
    differing_files: int = 0
    versions_too_many: int = 0
    runs_left_open: int = 0

    @property
    def wrong(self) -> dict[str, int]:
        return {k: v for k, v in vars(self).items() if k not in ("kills", "starts") and v}


class Run:
    """A run whose lines are read, with their times, as they come."""

    def __init__(self, lines: Iterable[str]):
        self.seen: list[tuple[float, str]] = []
        self._thread = threading.Thread(target=self._read, args=(lines,), daemon=True)
        self._thread.start()

    def _read(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.seen.append((time.monotonic(), line.rstrip()))

    def text(self) -> str:
        return "\n".join(line for _, line in self.seen)

    def began(self, stage: str) -> float | None:
        return next((at for at, line in self.seen if line.startswith(f"→ {stage}")), None)

    def finished(self, stage: str) -> float | None:
        done = (at for at, line in self.seen if line.startswith(f"✓ {stage}"))
        return next(done, None)

    def stages(self, mark: str) -> set[str]:
        return {line.split()[1] for _, line in self.seen if line.startswith(mark)}


def finish(folder: Path) -> Run:
    """A run to its end."""
    with started(folder, "shrinkflow", "run") as process:
        run = Run(process.stdout)
        process.wait(SECONDS)
        run._thread.join(10)
        assert process.returncode == 0, run.text()
    return run


def kill_in(folder: Path, stage: str, seconds: float) -> tuple[Run, bool]:
    """A run that is killed so many seconds after `stage` began; whether it had not ended before."""
    with started(folder, "shrinkflow", "run") as process:
        run = Run(process.stdout)
        wait_until(lambda: run.began(stage) is not None or process.poll() is not None)
        time.sleep(max(0.0, (run.began(stage) or 0.0) + seconds - time.monotonic()))
        process.kill()
        process.wait()
        run._thread.join(10)
        assert process.returncode in (0, -signal.SIGKILL), run.text()
    return run, process.returncode != 0


def wait_until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def stamps(folder: Path, pattern: str) -> dict[str, tuple[int, int]]:
    """Files by inode and moment of their last change."""
    found = {path: path.stat() for path in folder.glob(pattern)}
    return {str(p.relative_to(folder)): (s.st_ino, s.st_mtime_ns) for p, s in found.items()}


def not_whole(folder: Path) -> list[str]:
    """What bears the name of something finished and is not whole."""
    found = []
    for path in folder.glob(LAYERS):
        try:
            read_layer(path)
        except CheckpointError as error:
            found.append(str(error))
    markers = folder.glob(f".shrinkflow/work/**/{MARKER}")
    return found + [str(marker) for marker in markers if not is_whole(marker.parent)]


def outputs(folder: Path) -> dict[str, str]:
    """What the stages made, by digest."""
    files = [f for name in OUTPUTS for f in (folder / "artifacts" / name).rglob("*")]
    return {
        str(file.relative_to(folder)): file_digest(file)
        for file in files
        if file.is_file() and file.name not in NOT_COMPARED and file.name != ".gitignore"
    }


def changed(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> int:
    return sum(path in after and after[path] != stamp for path, stamp in before.items())


def one_pass(
    folder: Path, stages: Iterable[str], lasted: dict[str, float], draw: random.Random, sum_: Counts
) -> None:
    """Takes the workspace `folder` to its end, killed once in each of `stages`."""
    done: set[str] = set()
    layers: dict[str, tuple[int, int]] = {}
    groups: dict[str, tuple[int, int]] = {}
    for stage in (*stages, None):
        if stage is None:
            run = finish(folder)
        else:
            run, killed = kill_in(folder, stage, draw.random() * lasted[stage])
            sum_.kills[stage] = sum_.kills.get(stage, 0) + killed
        sum_.starts += 1
        sum_.stages_run_again += len(run.stages("→") & done)
        done |= run.stages("✓")
        now = stamps(folder, LAYERS)
        sum_.layers_recomputed += changed(layers, now)
        layers = now
        now = stamps(folder, ".shrinkflow/work/quantize/*/group.json")
        sum_.groups_recovered_again += changed(groups, now)
        groups = now
        sum_.not_whole += len(not_whole(folder))
    logs = "".join(p.read_text() for p in (folder / ".shrinkflow" / "logs").glob("*.log"))
    sum_.damage_in_logs += logs.count("damaged")
    with sqlite3.connect(folder / ".shrinkflow" / "mlflow" / "mlflow.db") as database:
        ((versions,),) = database.execute("select count(*) from model_versions")
        ((open_,),) = database.execute("select count(*) from runs where status = 'RUNNING'")
    sum_.versions_too_many += versions - 1
    sum_.runs_left_open += open_


def differing(folder: Path, undisturbed: dict[str, str]) -> list[str]:
    """Outputs that are not those of the undisturbed run, byte by byte."""
    found = outputs(folder)
    return sorted(
        p for p in found.keys() | undisturbed.keys() if found.get(p) != undisturbed.get(p)
    )
