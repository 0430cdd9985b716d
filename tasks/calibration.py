"""What weights the errors of the layers, and what methods need to know of their inputs: measured
once, on the finetuned model, and kept in the layer store.

The finetuned model and not the student before each group: the recovery brings the student's hidden
states and logits back to this model's, in whose neighbourhood the loss has the measured curvature.
And the layers of a group depend then on the recovery of the groups before it by their own weights
alone, as they do without a sensitivity.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas import State
from prefect.states import Completed

from compress.config import Params
from tasks import caching, source
from tasks.layers import CACHED, LayerJob, Measured
from tasks.source import check_unchanged
from tasks.stages import TABLE
from tasks.store import LayerStore, used
from tasks.workspace import opened


def is_asked(params: Params) -> bool:
    """Whether any group has a sensitivity, or a method that needs to know its layers' inputs."""
    from compress.codecs.registry import codec_class

    quantize = params.quantize
    return any(
        quantize.sensitivity_of(group) != "none"
        or codec_class(settings.method).needed(settings) is not None
        for group in quantize.groups
        for settings in [quantize.settings(group)]
    )


@task(
    name="measure the sensitivity of the weights",
    task_run_name="measure the sensitivity of the weights",
    cache_policy=NO_CACHE,
)
def weigh(
    root: str, student: str, groups: Sequence[Sequence[LayerJob]]
) -> State[list[list[LayerJob]]]:
    """The jobs, for the model folder `student`, with the sensitivities that params.yaml asks for
    and the statistics that methods need; the state is called Cached where all were in the store.

    Raises CheckpointError where the model cannot be read."""
    check_unchanged(TABLE["quantize"].code)
    workspace, params = opened(root)
    rows, store = workspace.data / "train.parquet", LayerStore(workspace.layers)
    every = [job for jobs in groups for job in jobs]
    found, known = weighed(every, Path(student), rows, params, store)
    found, known_too = _with_statistics(found, Path(student), rows, params, store)
    left = iter(found)
    data = [[next(left) for _ in jobs] for jobs in groups]
    return Completed(name=CACHED if known and known_too else "Completed", data=data)


def weighed(
    jobs: Sequence[LayerJob], folder: Path, rows: Path, params: Params, store: LayerStore
) -> tuple[list[LayerJob], bool]:
    """Jobs for the model in `folder` with the sensitivities that params ask for; and whether all
    were in the store."""
    from compress.calibration.measure import asked

    named = asked(params.quantize, ((job.name, job.group, job.settings) for job in jobs))
    found, known = _all(named.items(), folder, rows, params, store)
    return [replace(job, sensitivity=found.get(job.name)) for job in jobs], known


def _with_statistics(
    jobs: Sequence[LayerJob], folder: Path, rows: Path, params: Params, store: LayerStore
) -> tuple[list[LayerJob], bool]:
    """The same for the statistics of the layers' inputs that their methods need."""
    from compress.calibration.measure import needed

    passes = needed((job.name, job.shape, job.settings) for job in jobs)
    found, known = _all(passes, folder, rows, params, store)
    return [replace(job, statistics=found.get(job.name)) for job in jobs], known


def _all(
    passes: Iterable[tuple[str, list[str]]],
    folder: Path,
    rows: Path,
    params: Params,
    store: LayerStore,
) -> tuple[dict[str, Measured], bool]:
    found: dict[str, Measured] = {}
    was_there = True
    for kind, names in passes:
        own, known = measured(kind, folder, rows, names, params, store)
        found, was_there = found | own, was_there and known
    return found, was_there


def measured(
    kind: str, folder: Path, rows: Path, names: Sequence[str], params: Params, store: LayerStore
) -> tuple[dict[str, Measured], bool]:
    """What is measured of the named layers of the model in `folder`, on the rows of a parquet file,
    by name; and whether it was in the store. What is damaged there is measured again."""
    from compress.calibration.measure import measure
    from compress.calibration.sensitivity_file import read_digests

    recovery = params.quantize.finetune
    loss = [recovery.temperature, recovery.logits_weight, recovery.hidden_weight]
    key = caching.key(
        kind=f"sensitivity of the weights: {kind}",
        model=caching.hash_folder(folder),
        rows=caching.hash_file(rows),
        layers=list(names),
        loss=loss if kind in ("fisher", "moments") else None,
        seed=params.seed,
        code=source.code_version(["compress.calibration.measure"], without=caching.SETTINGS),
    )
    path = store.path(key)
    digests = read_digests(path)
    known = digests is not None
    if digests is None:
        store.require_writable([key])
        digests = measure(kind, folder, rows, names, params, path)
    used(path)
    return {name: Measured(kind, str(path), sha) for name, sha in digests.items()}, known
