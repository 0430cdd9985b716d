"""Workspaces that run in seconds: a tiny BERT with its own vocabulary, sentences with labels."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import psutil
import yaml

from compress.params_yaml import load_params
from tasks.workspace import Workspace
from tests.flows.forked import Forked

BIN = Path(sys.executable).parent
LAYERS = ".shrinkflow/layers/*/*.safetensors"
_server: dict[str, str] = {}
FILLER = ["the", "a", "film", "plot", "actor", "scene", "was", "is", "very"]
GOOD = ["good", "great", "warm", "funny"]
WORDS = [*FILLER, *GOOD, "bad", "dull", "slow", "flat"]

TINY: dict[str, Any] = {
    "model": {"source": "model"},
    "data": {"source": "rows.csv", "holdout": 16, "max_length": 16},
    "pretrain": {"enabled": False, "data": {"source": "rows.csv", "max_length": 16}},
    "finetune": {"max_steps": 4, "batch_size": 8, "checkpoint_steps": 2},
    "noise": {"function": "mean", "rate": 0.1},
    "quantize": {
        "block_size": 4,
        "codebook_size": 8,
        "iterations": 3,
        "groups": [
            {"name": "ffn", "layers": ["**.intermediate.dense", "**.layer.*.output.dense"]},
            {"name": "attention", "layers": ["**.attention.**.query", "**.attention.**.key"]},
        ],
        "finetune": {"max_steps": 2, "batch_size": 8},
    },
    "gate": {"max_drop": 100.0, "min_ratio": 0.1},
    "tracking": {"model_name": "tiny"},
}


def write_workspace(folder: Path, model: Path, params: dict[str, Any]) -> None:
    (folder / "model").symlink_to(model)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    draw = random.Random(0)
    rows = [[draw.choice(WORDS) for _ in range(draw.randrange(3, 9))] for _ in range(64)]
    lines = [f"{' '.join(row)},{sum(w in GOOD for w in row) % 2}" for row in rows]
    (folder / "rows.csv").write_text("\n".join(["text,label", *lines]) + "\n")


def environment() -> dict[str, str]:
    """As on a user's machine that is offline: no server of Prefect's, our python first."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    return kept | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "160"} | _server


@contextmanager
def at_server(url: str) -> Iterator[None]:
    """Inside, the user has a Prefect server at `url`: no run starts one, which takes long."""
    before = dict(_server)
    _server["PREFECT_API_URL"] = url
    try:
        yield
    finally:
        _server.clear()
        _server.update(before)


def call(
    folder: Path, *command: str, timeout: float = 240, fresh: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs a command of the environment in `folder`, to its end.

    `fresh` processes import everything themselves, others are forked from one that has done so.
    """
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        process = _start(folder, command, fresh, out.fileno(), err.fileno())
        try:
            process.wait(timeout)
        finally:
            process.kill()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, process.wait(), out.read(), err.read())


@contextmanager
def started(folder: Path, *command: str, fresh: bool = False) -> Iterator[Any]:
    """The same, in the background; killed at the end if it still runs."""
    reader, writer = os.pipe()
    with open(reader) as output:
        try:
            process = _start(folder, command, fresh, writer, writer)
        finally:
            os.close(writer)
        process.stdout = output
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _start(folder: Path, command: Sequence[str], fresh: bool, out: int, err: int) -> Any:
    if not fresh:
        return Forked(command, folder, environment(), out, err)
    # Where the tests themselves are a background job, SIGINT is ignored, by children too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    program = [str(BIN / command[0]), *command[1:]]
    return subprocess.Popen(
        program, cwd=folder, env=environment(), stdin=subprocess.DEVNULL,
        stdout=out, stderr=err, text=True,
    )  # fmt: skip


def working_in(folder: Path) -> list[psutil.Process]:
    """The processes whose working directory is in `folder`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd().startswith(str(folder)):
                found.append(process)
    return found


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes params.yaml of a workspace."""
    path = folder / "params.yaml"
    values = yaml.safe_load(path.read_text())
    change(values)
    path.write_text(yaml.safe_dump(values, sort_keys=False))


def marks(done: subprocess.CompletedProcess[str]) -> dict[str, bool]:
    """Stage -> whether it was up to date, from what the user sees."""
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stderr.splitlines() if line.startswith("✓")]
    return {line[1]: "date" in line for line in lines}


def quantize(workspace: Workspace) -> None:
    """Runs the stage as a flow, in this process."""
    from flows.stage_flows import flow_of

    flow_of("quantize", load_params(workspace.params_file))(str(workspace.root))


def stamps(workspace: Workspace) -> dict[str, int]:
    """When each file of the layer store was written, by name."""
    return {p.name: p.stat().st_mtime_ns for p in workspace.root.glob(LAYERS)}
