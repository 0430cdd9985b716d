"""What a size budget needs to know of layers: their curves, and what errors in them do.

It is kept in the layer store as JSON, named by all that it depends on.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compress.config import Params
from compress.errors import InputError
from tasks import caching, source
from tasks.layers import LayerJob
from tasks.outputs import write_json
from tasks.store import LayerStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CurveJob:
    """One weight to measure, with every candidate; `layer.checkpoint` is the file it is in."""

    layer: LayerJob
    candidates: tuple[Any, ...]


def curve_jobs(folder: Path, params: Params, jobs: Sequence[LayerJob]) -> list[CurveJob]:
    """The candidates of `jobs`, whose weights are in the model folder `folder`."""
    from compress.allocation.candidates import layer_candidates
    from compress.source_weights import tensor_files

    files, quantize, made = tensor_files(folder), params.quantize, []
    for job in jobs:
        located = replace(job, checkpoint=str(files[job.tensor]))
        found = layer_candidates(job.shape, job.settings, quantize, job.group)
        if not found:
            raise InputError(f"{job.name} (group {job.group}): no method has settings for it")
        made.append(CurveJob(located, tuple(found)))
    return made


def curve_of(job: CurveJob, store: LayerStore) -> tuple[dict[str, Any], bool]:
    """The curve, and whether it was in the store."""
    from compress.allocation.curves import measure
    from compress.codecs.registry import codec_class
    from compress.quantization import read_tensor

    layer = job.layer
    weight = read_tensor(Path(layer.checkpoint), layer.tensor, layer.transposed)
    measured = layer.sensitivity, layer.statistics
    sensitivity, statistics = (
        read_tensor(Path(found.file), layer.name) if found else None for found in measured
    )
    if not bool(weight.isfinite().all()):
        raise InputError(f"{layer.tensor} in {layer.checkpoint} holds NaN or Inf")
    methods = sorted({codec_class(s.method).__module__ for s in job.candidates})
    key = caching.key(
        kind="curve",
        weight=caching.hash_values(weight),
        shape=list(layer.shape),
        candidates=[s.model_dump(mode="json") for s in job.candidates],
        seed=layer.seed,
        sensitivity=measured[0].sha256 if measured[0] else None,
        statistics=measured[1].sha256 if measured[1] else None,
        code=_version("compress.allocation.curves", *methods),
    )
    curve = _read(store, key)
    if curve is not None:
        return curve, True
    curve = measure(
        weight,
        job.candidates,
        seed=layer.seed,
        sensitivity=sensitivity,
        statistics=statistics,
    )
    write_json(_path(store, key), curve)
    return curve, False


def sensitivity_of(
    folder: Path,
    rows: Path,
    names: Sequence[str],
    params: Params,
    store: LayerStore,
    *,
    num_labels: int | None = None,
) -> tuple[dict[str, Any], bool]:
    """What an error in each of the named layers of the model in `folder` does to the loss of the
    recovery, on the rows of a parquet file; and whether it was in the store."""
    recovery = params.quantize.finetune
    key = caching.key(
        kind="sensitivity",
        model=caching.hash_folder(folder),
        rows=caching.hash_file(rows),
        layers=list(names),
        labels=num_labels,
        loss=[recovery.temperature, recovery.logits_weight, recovery.hidden_weight],
        seed=params.seed,
        code=_version("compress.allocation.sensitivity"),
    )
    found = _read(store, key)
    if found is not None:
        return found, True
    found = _measure(folder, rows, names, params, num_labels)
    write_json(_path(store, key), found)
    return found, False


def _measure(
    folder: Path, rows: Path, names: Sequence[str], params: Params, num_labels: int | None
) -> dict[str, Any]:
    from transformers import set_seed

    from compress.allocation.sensitivity import sensitivity
    from compress.loading import load_model, load_tokenizer
    from compress.rows import Rows
    from compress.selection import compressible

    changes: dict[str, Any] = {} if num_labels is None else {"num_labels": num_labels}
    set_seed(params.seed)  # of a head that is new
    model = load_model(folder, whole=False, **changes)
    refs = [ref for ref in compressible(model) if ref.name in set(names)]
    tokenizer = load_tokenizer(folder)
    recovery = params.quantize.finetune
    return sensitivity(model, tokenizer, Rows(rows), refs, recovery, seed=params.seed)


def _version(*modules: str) -> str:
    return source.code_version(list(modules), without=caching.SETTINGS)


def _path(store: LayerStore, key: str) -> Path:
    return store.path(key).with_suffix(".json")


def _read(store: LayerStore, key: str) -> dict[str, Any] | None:
    """What was measured before; a damaged file counts as none."""
    path = _path(store, key)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        logger.warning("%s is damaged and will be made again: %s", path, error)
        return None
