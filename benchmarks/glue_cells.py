"""What benchmarks/glue.py measures, as data: a cell is one task, one row of the table, one seed."""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from compress.config import Params, Section
from compress.errors import InputError
from compress.params_yaml import apply_override, describe

FOLDER = Path(__file__).parent / "glue"
BESIDE = ("gate", "tracking", "compute")  # sections that no result depends on
TWINS = {"rotten_tomatoes", "sst2"}  # most validation texts of one are training texts of the other


class Task(Section):
    """A task: what it sets on top of base.yaml."""

    name: str
    label: str = ""
    set: dict[str, Any]


class Row(Section):
    """A row of the table: a method, as what it sets on top of the row it stands `on`. Ablations
    are points of one kind in the picture; what is `extra` is measured only where it is named.
    With `ratios` it stands for as many rows, each with the size budget of one."""

    name: str
    label: str = ""
    kind: Literal["uncompressed", "post-training", "ipq"] = "ipq"
    on: str | None = None
    ablation: bool = False
    extra: bool = False
    ratios: list[int] = Field(default=[])
    curve: str = ""  # what the rows of several ratios have in common: one line of the picture
    set: dict[str, Any] = Field(default={})

    @property
    def sized(self) -> list["Row"]:
        """One row for each of the ratios, or itself."""
        return [
            self.model_copy(
                update={
                    "name": f"{self.name}-{ratio}x",
                    "label": f"{self.label or self.name}, {ratio}x",
                    "curve": self.label or self.name,
                    "ratios": [],
                    "set": self.set | {"quantize.budget": {"ratio": ratio}},
                }
            )
            for ratio in self.ratios
        ] or [self]


class Table(Section):
    """Some of the rows, shown in a place of its own; and how distortion and score correlate.
    `model`: what the model of a row scores before it is compressed, too."""

    name: str
    rows: list[str]
    correlation: bool = False
    model: bool = False


class Spec(Section):
    """base.yaml, tasks.yaml and rows.yaml of one folder."""

    base: dict[str, Any]
    tasks: list[Task]
    rows: list[Row] = Field(min_length=1)
    tables: list[Table] = Field(default=[])

    def chain(self, row: Row) -> list[Row]:
        """The rows that `row` stands on, from the first one to itself."""
        found, known = [row], {r.name: r for r in self.rows}
        while (below := found[0].on) is not None:
            if below not in known or known[below] in found:
                raise InputError(f"rows.yaml: {found[0].name} stands on `{below}`, which is no row")
            found.insert(0, known[below])
        return found


@dataclass(frozen=True)
class Cell:
    """One training and compression: `raw` are its params as they are written, before defaults."""

    task: str
    row: str
    kind: str
    seed: int
    raw: dict[str, Any]

    @property
    def params(self) -> Params:
        """Raises InputError that names the cell and the keys."""
        try:
            return Params.model_validate(self.raw)
        except ValidationError as error:
            raise InputError(f"{self.task}, row {self.row}: {describe(error)}") from None

    @property
    def data_key(self) -> str:
        """Names the tokenized rows."""
        parts = {name: self.raw[name] for name in ("model", "data")}
        return digest(
            parts | ({"pretrain": self.raw["pretrain"]["data"]} if self._pretrains else {})
        )

    @property
    def teacher_key(self) -> str:
        """Names the finetuned model: rows that train it alike share it."""
        params = self.params
        noise = params.noise.model_dump(mode="json")
        quiet = params.noise.function == "none" or params.noise.rate == 0
        if quiet and not params.noise.layerdrop:
            noise = {}
        elif not quiet:
            noise |= params.noise_settings().model_dump()
            noise["layers"] = sorted({p for group in params.quantize.groups for p in group.layers})
        parts = {"data": self.data_key, "finetune": self.raw["finetune"], "noise": noise}
        return digest(
            parts
            | {"seed": self.seed}
            | ({"pretrain": self.raw["pretrain"]} if self._pretrains else {})
            | ({"share": params.depth.share} if params.depth.share > 1 else {})
        )

    @property
    def key(self) -> str:
        """Names the result: the content of all params that it depends on, not its row's name."""
        if self.kind == "uncompressed":
            return digest({"teacher": self.teacher_key})
        kept = {name: value for name, value in self.raw.items() if name not in BESIDE}
        kept["quantize"] = {n: v for n, v in kept["quantize"].items() if n != "workers"}
        return digest({"kind": self.kind, "params": kept})

    @property
    def _pretrains(self) -> bool:
        return bool(self.raw["pretrain"].get("enabled", True))


def read_spec(folder: Path = FOLDER) -> Spec:
    """Raises InputError for files that are missing or do not fit."""
    try:
        base, tasks, rows = (
            yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
            for name in ("base", "tasks", "rows")
        )
        spec = Spec.model_validate({"base": base, "tasks": tasks, **rows})
    except (OSError, TypeError, yaml.YAMLError) as error:
        raise InputError(f"{folder}: cannot be read ({error})") from None
    except ValidationError as error:
        raise InputError(f"{folder}: {describe(error)}") from None
    spec = spec.model_copy(update={"rows": [one for row in spec.rows for one in row.sized]})
    names = [row.name for row in spec.rows]
    for wanted in (*spec.tables, Table(name="rows", rows=sorted(set(names)))):
        if wrong := [name for name in wanted.rows if names.count(name) != 1]:
            raise InputError(f"{folder}: {wanted.name}: no row, or two rows, {', '.join(wrong)}")
    return spec


def cells(
    spec: Spec, seeds: int, settings: Sequence[str] = (), max_train_rows: int | None = None
) -> list[Cell]:
    """Every cell, by task, then seed, then row. `settings` are overrides KEY=VALUE for all."""
    found = []
    for task in spec.tasks:
        for seed in range(seeds):
            for row in spec.rows:
                raw = _raw(spec, task, row, settings)
                raw["seed"] = seed
                if max_train_rows is not None:
                    raw["data"]["max_rows"] = max_train_rows
                found.append(Cell(task.name, row.name, row.kind, seed, raw))
                _check_apart(found[-1])
    return found


def _raw(spec: Spec, task: Task, row: Row, settings: Sequence[str]) -> dict[str, Any]:
    raw = copy.deepcopy(spec.base)
    for values in (task.set, *(below.set for below in spec.chain(row))):
        for key, value in values.items():
            apply_override(raw, f"{key}={json.dumps(value)}")
    for setting in settings:
        apply_override(raw, setting)
    return raw


def _check_apart(cell: Cell) -> None:
    """Raises InputError where a twin's texts would be trained on."""
    if cell.task in TWINS and any(twin in json.dumps(cell.raw) for twin in TWINS - {cell.task}):
        raise InputError(
            f"{cell.task}, row {cell.row}: Rotten Tomatoes and SST-2 hold the same texts; training "
            "on one and scoring on the other means nothing"
        )


def digest(parts: Mapping[str, Any]) -> str:
    """SHA-256 of plain JSON values."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
