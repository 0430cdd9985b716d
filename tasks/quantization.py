"""The tasks behind the stage `quantize` but for the layers: list them, recover a group, finish.

A task takes folders, keys and plain values, so that it can run anywhere the folders are mounted.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas import State
from prefect.states import Completed

from compress.config import DepthConfig, Params
from compress.errors import CheckpointError, ShrinkflowError
from compress.seeds import layer_seed
from tasks import caching
from tasks.allocation import COLUMNS, allocation_facts, allocation_rows
from tasks.artifacts import show_layers
from tasks.layer_tables import layer_row, totals, usage_rows
from tasks.layers import CACHED, LayerJob
from tasks.model_card import model_card
from tasks.outputs import read_json, write_json, write_table
from tasks.source import check_unchanged
from tasks.stages import TABLE
from tasks.store import LayerStore
from tasks.training import CURVE
from tasks.workspace import opened

if TYPE_CHECKING:
    from compress.allocation.allocate import Allocation

DONE = "group.json"  # written last: a group without it is not finished


@task(
    name="list the layers of every group",
    task_run_name="list the layers of every group",
    cache_policy=NO_CACHE,
)
def list_groups(root: str, student: str) -> list[list[LayerJob]]:
    """The layers that params.yaml selects of the model folder `student`, by group, in the order in
    which they are quantized."""
    _, params = opened(root)
    return layer_jobs(Path(student), params)


def layer_jobs(folder: Path, params: Params) -> list[list[LayerJob]]:
    """The same for the model in `folder`. Raises CheckpointError where a weight is missing."""
    from compress.selection import select
    from compress.skeleton import skeleton, tensor_key
    from compress.source_weights import tensor_files

    model = skeleton(folder)
    selection = select(model, params.quantize)
    keys = tensor_files(folder)
    jobs: dict[str, list[LayerJob]] = {}
    for layer in selection.layers:
        tensor = tensor_key(layer.ref, keys, getattr(model, "base_model_prefix", ""))
        if tensor is None:
            raise CheckpointError(f"{folder}: no weight of {layer.ref.name} in it")
        name = layer.ref.name
        seed = layer_seed(params.seed, name)
        job = LayerJob(
            name, layer.group, layer.ref.shape, tensor, layer.settings, seed,
            transposed=layer.ref.transposed,
        )  # fmt: skip
        jobs.setdefault(layer.group, []).append(job)
    return [jobs[group.name] for group in params.quantize.groups]


@task(name="recover a group", task_run_name="recover {group}", cache_policy=NO_CACHE)
def recover_group(
    root: str, group: str, before: str, student: str, keys: dict[str, str]
) -> State[dict[str, Any]]:
    """Finetunes the student with the layers of `group` (name -> key in the store) compressed.

    `before` names the state of the group before. Returns {key, folder, facts}; a group that was
    finished by a run that died later is not recovered again.
    """
    from compress import quantization
    from compress.launch import launched
    from compress.verify import is_whole

    check_unchanged(TABLE["quantize"].code)
    workspace, params = opened(root)
    key = caching.group_key(group=group, before=before, layers=keys, params=params)
    work = workspace.work("quantize") / f"{group}-{key[:16]}"
    result = {"key": key, "folder": str(work / "model")}
    facts = read_json(work / DONE) if is_whole(work / "model") else {}
    if facts:
        return Completed(name=CACHED, data=result | {"facts": facts})
    store = LayerStore(workspace.layers)
    facts = launched(
        quantization.recover,
        params,
        group=group,
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


@task(
    name="start with the finetuned model",
    task_run_name="start with the finetuned model",
    cache_policy=NO_CACHE,
)
def start(root: str) -> tuple[str, str]:
    """A name for what every group depends on, the teacher, the rows and the depth of the student;
    and the folder of the student, which is the teacher itself unless it has fewer layers."""
    from compress import quantization

    check_unchanged(TABLE["quantize"].code)
    workspace, params = opened(root)
    rows = [caching.hash_file(workspace.data / f"{s}.parquet") for s in ("train", "validation")]
    depth = {} if params.depth == DepthConfig() else {"depth": params.depth.model_dump()}
    key = caching.key(teacher=caching.hash_folder(workspace.finetuned), rows=rows, **depth)
    folder = workspace.work("quantize") / f"start-{key[:16]}"
    return key, str(quantization.start(params.depth, workspace.finetuned, folder))


@task(
    name="write the compressed model",
    task_run_name="write the compressed model",
    cache_policy=NO_CACHE,
)
def finish(
    root: str,
    jobs: Sequence[LayerJob],
    reports: dict[str, dict[str, Any]],
    groups: Sequence[dict[str, Any]],
    student: str,
    teacher: dict[str, Any],
    allocation: "Allocation | None" = None,
) -> None:
    """artifacts/compressed with its card, the tables of layers, groups and codes, the metrics.

    Raises ShrinkflowError where the file is larger than the budget that `allocation` spends.
    """
    from compress import quantization

    workspace, params = opened(root)
    sizes = quantization.layer_sizes(Path(student))
    rows = [
        layer_row(job, reports[job.name], sizes.get(job.name, reports[job.name]["bytes"]))
        for job in jobs
    ]
    table = [_group_row(facts, rows, teacher["bytes"]) for facts in groups]
    metrics = totals(rows) | {
        "metric": params.data.metric,
        "score_uncompressed": teacher["score"],
        "bytes_uncompressed": teacher["bytes"],
    }
    card = model_card(params, read_json(workspace.data / "data.json"), metrics, table)
    written = quantization.finalize(params, Path(student), workspace.compressed, card)
    if allocation and written["bytes"] > allocation.limit:
        raise ShrinkflowError(
            f"the file has {written['bytes']:,} bytes, more than the budget of "
            f"{allocation.limit:,}; weights beyond fp16 are stored as fp32"
        )
    curves = [{"group": f["group"], **row} for f in groups for row in f["curve"]]
    write_table(workspace.plot("layers"), rows)
    write_table(workspace.plot("groups"), table)
    write_table(workspace.plot("usage"), usage_rows(reports), ("name", "code", "count"))
    write_table(workspace.plot("quantize"), curves, ("group", *CURVE))
    write_table(workspace.plot("allocation"), allocation_rows(allocation), COLUMNS)
    if allocation:
        metrics["budget"] = allocation_facts(allocation)
    metrics |= {
        "bytes": written["bytes"],
        "ratio": teacher["bytes"] / written["bytes"],
        "groups": {row["group"]: {k: v for k, v in row.items() if k != "group"} for row in table},
    }
    write_json(workspace.metrics("quantize"), metrics)
    show_layers(workspace, rows)


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
