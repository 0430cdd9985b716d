"""The tasks behind the stage `quantize`: compress a layer, recover a group, hand out the result.

A task takes folders, keys and plain values, so that it can run anywhere the folders are mounted.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas import State
from prefect.states import Completed

from compress.config import CodebookConfig
from compress.errors import CheckpointError
from tasks import caching
from tasks.layer_tables import layer_row, totals, usage_rows
from tasks.model_card import model_card
from tasks.outputs import read_json, write_json, write_table
from tasks.source import check_unchanged
from tasks.stages import TABLE
from tasks.store import LayerStore
from tasks.training import CURVE
from tasks.workspace import opened

CACHED = "Cached"
DONE = "group.json"  # written last: a group without it is not finished


@dataclass(frozen=True)
class LayerJob:
    """One weight to compress. `tensor` is its key in the safetensors files of a model folder."""

    name: str
    group: str
    shape: tuple[int, ...]
    tensor: str
    settings: CodebookConfig


@task(name="list the layers of every group", cache_policy=NO_CACHE)
def list_groups(root: str) -> list[list[LayerJob]]:
    """The layers that params.yaml selects, by group, in the order in which they are quantized."""
    from compress.selection import select
    from compress.skeleton import skeleton, tensor_key

    workspace, params = opened(root)
    model = skeleton(workspace.finetuned)
    selection = select(model, params.quantize)
    keys = _tensor_files(workspace.finetuned)
    jobs: dict[str, list[LayerJob]] = {}
    for layer in selection.layers:
        tensor = tensor_key(layer.ref, keys, getattr(model, "base_model_prefix", ""))
        if tensor is None:
            raise CheckpointError(f"{workspace.finetuned}: no weight of {layer.ref.name} in it")
        job = LayerJob(layer.ref.name, layer.group, layer.ref.shape, tensor, layer.settings)
        jobs.setdefault(layer.group, []).append(job)
    return [jobs[group.name] for group in params.quantize.groups]


@task(name="compress a layer", task_run_name="compress {job.name}", cache_policy=NO_CACHE)
def compress_layer(root: str, student: str, job: LayerJob) -> State[dict[str, Any]]:
    """Makes the layer file of one weight of the model folder `student`, or finds it in the store.

    Returns {name, key, report}; the state is called Cached where nothing had to be computed.
    """
    from compress.codecs.base import codec_class
    from compress.quantization import compress_layer as compress

    check_unchanged(TABLE["quantize"].code)
    workspace, params = opened(root)
    checkpoint = _tensor_files(Path(student))[job.tensor]
    seed = caching.layer_seed(params.seed, job.name)
    key = caching.layer_key(
        weight=caching.hash_tensor(checkpoint, job.tensor),
        shape=job.shape,
        settings=job.settings,
        seed=seed,
        code=caching.method_version(codec_class(job.settings.method).__module__),
    )
    store = LayerStore(workspace.layers)
    report = store.find(key)
    found = report is not None
    if report is None:
        report = compress(checkpoint, job.tensor, job.settings, seed=seed, out_path=store.path(key))
    data = {"name": job.name, "key": key, "report": report}
    return Completed(name=CACHED if found else "Completed", data=data)


@task(name="recover a group", task_run_name="recover {group}", cache_policy=NO_CACHE)
def recover_group(
    root: str, group: str, before: str, student: str, keys: dict[str, str]
) -> State[dict[str, Any]]:
    """Finetunes the student with the layers of `group` (name -> key in the store) compressed.

    `before` names the state of the group before. Returns {key, folder, facts}; a group that was
    finished by a run that died later is not recovered again.
    """
    from compress import quantization

    check_unchanged(TABLE["quantize"].code)
    workspace, params = opened(root)
    key = caching.group_key(before=before, layers=keys, params=params)
    work = workspace.work("quantize") / f"{group}-{key[:16]}"
    result = {"key": key, "folder": str(work / "model")}
    facts = read_json(work / DONE)
    if facts:
        return Completed(name=CACHED, data=result | {"facts": facts})
    store = LayerStore(workspace.layers)
    facts = quantization.recover(
        params,
        group,
        teacher_dir=workspace.finetuned,
        student_dir=Path(student),
        layer_files={name: store.path(key) for name, key in keys.items()},
        data_dir=workspace.data,
        out_dir=work / "model",
        work_dir=work / "trainer",
    )
    write_json(work / DONE, facts)
    shutil.rmtree(work / "trainer", ignore_errors=True)
    return Completed(data=result | {"facts": facts})


@task(name="name the inputs of the first group", cache_policy=NO_CACHE)
def first_key(root: str) -> str:
    """What every group depends on: the teacher and the rows."""
    workspace, _ = opened(root)
    rows = [caching.hash_file(workspace.data / f"{s}.parquet") for s in ("train", "validation")]
    return caching.key(teacher=caching.hash_folder(workspace.finetuned), rows=rows)


@task(name="write the compressed model", cache_policy=NO_CACHE)
def finish(
    root: str,
    jobs: Sequence[LayerJob],
    reports: dict[str, dict[str, Any]],
    groups: Sequence[dict[str, Any]],
    student: str,
    teacher: dict[str, Any],
) -> None:
    """artifacts/compressed with its card, the tables of layers, groups and codes, the metrics."""
    from compress import quantization

    workspace, params = opened(root)
    rows = [layer_row(job, reports[job.name]) for job in jobs]
    table = [_group_row(facts, rows, teacher["bytes"]) for facts in groups]
    metrics = totals(rows) | {
        "metric": params.data.metric,
        "score_uncompressed": teacher["score"],
        "bytes_uncompressed": teacher["bytes"],
    }
    card = model_card(params, read_json(workspace.data / "data.json"), metrics, table)
    written = quantization.finalize(params, Path(student), workspace.compressed, card)
    curves = [{"group": f["group"], **row} for f in groups for row in f["curve"]]
    write_table(workspace.plot("layers"), rows)
    write_table(workspace.plot("groups"), table)
    write_table(workspace.plot("usage"), usage_rows(reports), ("name", "code", "count"))
    write_table(workspace.plot("quantize"), curves, ("group", *CURVE))
    metrics |= {
        "bytes": written["bytes"],
        "ratio": teacher["bytes"] / written["bytes"],
        "groups": {row["group"]: {k: v for k, v in row.items() if k != "group"} for row in table},
    }
    write_json(workspace.metrics("quantize"), metrics)


def _group_row(facts: dict[str, Any], rows: list[dict[str, Any]], before: int) -> dict[str, Any]:
    own = totals([row for row in rows if row["group"] == facts["group"]])
    return {
        "group": facts["group"],
        "layers": own["layers"],
        "score_before_finetune": facts["score_before_finetune"],
        "score": facts["score"],
        "bytes": facts["bytes"],
        "ratio": before / facts["bytes"],
        "relative_distortion": own["relative_distortion"],
    }


def _tensor_files(folder: Path) -> dict[str, Path]:
    """Every tensor of a model folder -> the safetensors file with it; only headers are read."""
    from safetensors import SafetensorError, safe_open

    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                found.update(dict.fromkeys(file.keys(), path))
        except SafetensorError as error:
            raise CheckpointError(f"{path} is not whole ({error}); make it again") from None
    if not found:
        raise CheckpointError(f"{folder}: no *.safetensors in it")
    return found
