"""What the stages left behind in a workspace, read for the report and for tracking."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from compress.errors import InputError
from tasks.caching import hash_file
from tasks.gate import Candidate
from tasks.outputs import read_json
from tasks.workspace import STAGES, Workspace

DIGITS = 4  # after the point: told apart are a million held-out rows
TRAINED = ("pretrain", "finetune", "quantize")  # the stages that leave a training curve


def metrics(workspace: Workspace, stage: str) -> dict[str, Any]:
    """metrics/<stage>.json, empty where the stage has not been run."""
    return read_json(workspace.metrics(stage))


def timings(workspace: Workspace, stage: str) -> dict[str, Any]:
    """timings/<stage>.json: start and end (seconds since 1970), seconds, peak_memory (bytes)."""
    return read_json(workspace.timings(stage))


def plot(workspace: Workspace, name: str) -> pd.DataFrame | None:
    """plots/<name>.csv, None where it is missing or holds no rows."""
    path = workspace.plot(name)
    if not path.is_file() or not path.stat().st_size:
        return None
    table = pd.read_csv(path, dtype={"key": str})  # a key may look like a number
    return table if len(table) else None


def layer_keys(workspace: Workspace) -> list[str]:
    """The layers of the layer store that the compressed model was made of, empty if not known."""
    table = plot(workspace, "layers")
    return [] if table is None or "key" not in table else sorted(set(table["key"]))


def data_facts(workspace: Workspace) -> dict[str, Any]:
    """What `prepare` wrote about the rows: source, labels, numbers, hashes, a sample."""
    return read_json(workspace.data / "data.json")


@dataclass(frozen=True)
class Results:
    """A finished run: everything the report and the registry say about it."""

    metrics: dict[str, dict[str, Any]]
    timings: dict[str, dict[str, Any]]
    data: dict[str, Any]
    curves: dict[str, pd.DataFrame]
    layers: pd.DataFrame | None
    groups: pd.DataFrame | None
    model_hash: str | None

    @classmethod
    def read(cls, workspace: Workspace) -> "Results":
        """Reads what is there. Raises InputError where the stage `evaluate` has not been run."""
        found = {stage: metrics(workspace, stage) for stage in STAGES}
        if not found["evaluate"]:
            raise InputError(
                f"{workspace.metrics('evaluate')}: not there; run the stage `evaluate` first"
            )
        times = {stage: timings(workspace, stage) for stage in STAGES}
        curves = {stage: plot(workspace, stage) for stage in TRAINED}
        weights = workspace.compressed / "model.safetensors"
        return cls(
            metrics=found,
            timings={stage: time for stage, time in times.items() if time},
            data=data_facts(workspace),
            curves={stage: table for stage, table in curves.items() if table is not None},
            layers=plot(workspace, "layers"),
            groups=plot(workspace, "groups"),
            model_hash=hash_file(weights) if weights.is_file() else None,
        )

    @property
    def score_before(self) -> float:
        return float(self.metrics["evaluate"]["score_uncompressed"])

    @property
    def bytes_before(self) -> int:
        return int(self.metrics["evaluate"]["bytes_uncompressed"])

    @property
    def data_hash(self) -> str:
        """Of the held-out rows: scores are compared on the same rows only."""
        return str(self.data.get("held_out_sha256", ""))

    def candidate(self, version: str | None = None) -> Candidate:
        """The compressed model as the gate judges it, its numbers as its tags will say them."""
        found = self.metrics["evaluate"]
        return Candidate(
            score=round(float(found["score"]), DIGITS),
            drop=round(float(found["drop"]), DIGITS),
            ratio=round(float(found["ratio"]), DIGITS),
            bytes=int(found["bytes"]),
            metric=str(found["metric"]),
            data_hash=self.data_hash,
            version=version,
        )

    def registration(self) -> dict[str, Any] | None:
        """What register.json says, if it is about this very model."""
        found = self.metrics["register"]
        return found if found and found.get("model_sha256") == self.model_hash else None
