"""Compressing layers as mapped tasks. A job says by content all that its task needs, so that the
task runs the same in every process that reaches the checkpoint and the store."""

import math
import platform
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas import State
from prefect.runtime import task_run
from prefect.states import Completed

from compress.config import CodecConfig
from compress.errors import ShrinkflowError
from tasks import caching, cluster, students
from tasks.shared import SharedFolder
from tasks.source import check_unchanged
from tasks.stages import TABLE
from tasks.store import LayerStore
from tasks.workspace import Workspace, opened

if TYPE_CHECKING:
    from torch import Tensor

    from compress.fitting import Weight

CACHED = "Cached"
BATCH_WEIGHTS = 1 << 26  # that a GPU fits at once; larger layers fill it one by one


@dataclass(frozen=True)
class Measured:
    """What was measured for one layer: the tensor of its name in the safetensors file `file`, a
    local path or an fsspec URL; the hash is that of the tensor's bytes, `kind` what it is."""

    kind: str
    file: str
    sha256: str


@dataclass(frozen=True)
class LayerJob:
    """One weight to compress: `tensor` is its key in the safetensors file `checkpoint`.

    Without `sha256` the checkpoint is a local path. With it, it is an fsspec URL, and the hash that
    of the tensor's bytes. `sensitivity` weights its errors, `statistics` are what its method needs
    to know of its inputs. A `transposed` tensor is turned when it is read, to `shape`.
    """

    name: str
    group: str
    shape: tuple[int, ...]
    tensor: str
    settings: CodecConfig
    seed: int
    checkpoint: str = ""
    sha256: str | None = None
    sensitivity: Measured | None = None
    statistics: Measured | None = None
    transposed: bool = False


@dataclass(frozen=True)
class Place:
    """Where tasks put layers: the store `folder` of this machine, None for tasks on other machines,
    and the one that is `shared`, if any. Those must have the version `code` of the code."""

    folder: Path | None
    shared: SharedFolder | None = None
    code: str | None = None


@dataclass(frozen=True)
class GroupWork:
    """The layers of a group as they are handed to tasks: each batch has one shape and setting.
    A task takes `resources` of a worker."""

    batches: list[list[LayerJob]]
    place: Place
    resources: dict[str, float]


@task(
    name="hand out the layers of a group",
    task_run_name="hand out the layers of a group",
    cache_policy=NO_CACHE,
)
def hand_out(root: str, student: str, jobs: list[LayerJob]) -> GroupWork:
    """Where the weights of `jobs` are in the model folder `student`, and which go together.

    For tasks on other machines their weights are put into the shared store, until `take_back`.
    """
    import torch

    from compress.source_weights import tensor_files

    workspace, params = opened(root)
    files = tensor_files(Path(student))
    shared = cluster.shared_folder(params, workspace)
    if params.compute.runner == "threads" or shared is None:
        local = [replace(job, checkpoint=str(files[job.tensor])) for job in jobs]
        return GroupWork(
            batches(local, torch.cuda.device_count()), Place(workspace.layers, shared), {}
        )
    gpus = cluster.check(params, workspace)
    tensors = [(job.tensor, files[job.tensor]) for job in jobs]
    for job in jobs:
        found = filter(None, (job.sensitivity, job.statistics))
        tensors += [(job.name, Path(own.file)) for own in found]
    there = students.put(shared, workspace, tensors)
    place = Place(None, shared, cluster.code_version())
    return GroupWork(batches(_placed(jobs, files, there), gpus), place, params.compute.resources)


def _placed(
    jobs: list[LayerJob],
    files: Mapping[str, Path],
    there: Mapping[tuple[str, Path], tuple[str, str]],
) -> list[LayerJob]:
    """The jobs with the URLs and hashes that `students.put` returned."""
    placed = []
    for job in jobs:
        url, sha256 = there[job.tensor, files[job.tensor]]
        own = {
            part: replace(found, file=there[job.name, Path(found.file)][0])
            for part in ("sensitivity", "statistics")
            if (found := getattr(job, part))
        }
        placed.append(replace(job, checkpoint=url, sha256=sha256, **own))
    return placed


@task(
    name="take back the layers of a group",
    task_run_name="take back the layers of a group",
    cache_policy=NO_CACHE,
)
def take_back(root: str, work: GroupWork, keys: list[str]) -> None:
    """Brings layers that other machines have made into the store here; the weights there go.

    Raises ShrinkflowError where one of them is not whole: then it is made again by the next run.
    """
    workspace, _ = opened(root)
    shared = work.place.shared
    if shared is None or work.place.folder is not None:
        return
    store = LayerStore(workspace.layers, _other(shared, workspace))
    if lost := [key for key in keys if store.find(key) is None]:
        raise ShrinkflowError(
            f"{len(lost)} layers in {shared.url} are missing or damaged; start the run again"
        )
    students.clear(shared, workspace)


def _other(shared: SharedFolder, workspace: Workspace) -> SharedFolder | None:
    """None where the shared store is that of the project itself."""
    return None if Path(shared.url) == workspace.layers.parent else shared


def batches(jobs: list[LayerJob], gpus: int) -> list[list[LayerJob]]:
    """Jobs that are fitted together: on GPUs those of equal shape and settings, as many as one can
    take and at least a batch for each GPU; on the CPU, where that is no faster, single ones."""
    if not gpus:
        return [[job] for job in jobs]
    alike: dict[tuple[tuple[int, ...], str, str | None], list[LayerJob]] = {}
    for job in jobs:
        kind = job.sensitivity.kind if job.sensitivity else None
        alike.setdefault((job.shape, job.settings.model_dump_json(), kind), []).append(job)
    made = []
    for (shape, *_), found in alike.items():
        size = min(BATCH_WEIGHTS // math.prod(shape), math.ceil(len(found) / gpus))
        size = max(1, size)
        made += [found[i : i + size] for i in range(0, len(found), size)]
    return made


def _run_name() -> str:
    """`compress encoder.layer.0.output.dense`, or `compress 12 layers of 384x1536`."""
    jobs = task_run.get_parameters()["jobs"]
    if len(jobs) == 1:
        return f"compress {jobs[0].name}"
    return f"compress {len(jobs)} layers of {'x'.join(map(str, jobs[0].shape))}"


@task(name="compress layers", task_run_name=_run_name, cache_policy=NO_CACHE)
def compress_layers(jobs: list[LayerJob], place: Place) -> State[list[dict[str, Any]]]:
    """Makes the layer files of weights of one shape and setting, or finds them in the store.

    Returns {name, key, report, seconds} for each, seconds only where it was computed; the state is
    called Cached where all were found. Raises ShrinkflowError where this process has other code.
    """
    check_unchanged(TABLE["quantize"].code)
    if place.code is not None and cluster.code_version() != place.code:
        raise ShrinkflowError(
            f"{platform.node()} has other code of shrinkflow than the run; update it and restart "
            "its workers"
        )
    with ExitStack() as stack:
        folder = place.folder
        if folder is None:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="shrinkflow-")))
        outcomes, made = _find_or_make(jobs, LayerStore(folder, place.shared))
    return Completed(name="Completed" if made else CACHED, data=outcomes)


def _find_or_make(jobs: list[LayerJob], store: LayerStore) -> tuple[list[dict[str, Any]], bool]:
    """The outcomes, and whether any layer had to be made."""
    outcomes: dict[str, dict[str, Any]] = {}
    missing: dict[str, tuple[LayerJob, Weight]] = {}
    for job in jobs:
        weight = _read(job)
        key = _key(job, weight)
        report = store.find(key)
        if report is None:
            missing[key] = job, weight
        outcomes[key] = {"name": job.name, "key": key, "report": report, "seconds": None}
    if missing:
        store.require_writable(missing)
        for key, report in zip(missing, _compress(missing, store), strict=True):
            outcomes[key] |= {"report": report, "seconds": report.pop("seconds")}
            store.share(key)
    return list(outcomes.values()), bool(missing)


def _read(job: LayerJob) -> "Weight":
    from compress.fitting import Weight
    from compress.quantization import read_tensor
    from compress.remote import read_remote_tensor

    if job.sha256 is None:
        values = read_tensor(Path(job.checkpoint), job.tensor)
    else:
        values = read_remote_tensor(job.checkpoint, job.tensor, job.sha256)
    if job.transposed:
        values = values.T.contiguous()
    sensitivity, statistics = (
        read_remote_tensor(found.file, job.name, found.sha256) if found else None
        for found in (job.sensitivity, job.statistics)
    )
    name = f"{job.tensor} in {job.checkpoint}"
    return Weight(name, values, job.seed, sensitivity, statistics)


def _key(job: LayerJob, weight: "Weight") -> str:
    return caching.layer_key(
        weight=caching.hash_values(weight.values),
        shape=job.shape,
        settings=job.settings,
        seed=job.seed,
        code=method_version(job.settings),
        sensitivity=_name_of(weight.sensitivity),
        statistics=_name_of(weight.statistics),
    )


def _name_of(measured: "Tensor | None") -> str | None:
    """By its values and shape: how it was measured counts for nothing."""
    if measured is None:
        return None
    values = caching.hash_values(measured.contiguous())
    return caching.key(shape=list(measured.shape), values=values)


def _compress(
    missing: dict[str, tuple[LayerJob, "Weight"]], store: LayerStore
) -> list[dict[str, Any]]:
    from compress.quantization import compress_weights

    jobs, weights = zip(*missing.values(), strict=True)
    return compress_weights(weights, jobs[0].settings, [store.path(key) for key in missing])


def method_version(settings: CodecConfig) -> str:
    """Version of the code that compresses by these settings."""
    from compress.codecs.registry import codec_class

    return caching.method_version(codec_class(settings.method).__module__)
