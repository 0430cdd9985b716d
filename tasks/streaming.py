"""Streaming quantization with the layer store: a run that was killed computes no layer again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from compress.config import Params
from compress.errors import InputError
from compress.params_yaml import apply_override
from compress.seeds import layer_seed
from tasks import caching
from tasks.outputs import peak_memory
from tasks.store import LayerStore

if TYPE_CHECKING:
    from compress.stream_plan import StreamLayer


@dataclass(frozen=True)
class StreamSummary:
    """Of one run: layers in all and those found in the store, other tensors, bytes of the source's
    tensors and of the files written, largest tensor and peak memory in bytes, and the relative
    distortion over all compressed layers."""

    layers: int
    found: int
    others: int
    bytes_before: int
    bytes_after: int
    relative_distortion: float
    largest: int
    peak_memory: int


def stream_settings(
    params_file: Path | None, overrides: Sequence[str]
) -> tuple[dict[str, Any], int]:
    """The section `quantize` and the seed of a params file (all else in it is left alone), with
    overrides; without a file only these. Raises InputError for what is no params file."""
    raw: Any = {}
    if params_file is not None:
        try:
            raw = yaml.safe_load(params_file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"{params_file}: cannot be read: {error}") from None
    if not isinstance(raw, dict) or (unknown := set(raw) - set(Params.model_fields)):
        what = ", ".join(sorted(map(str, unknown))) if isinstance(raw, dict) else "no sections"
        raise InputError(f"{params_file}: unknown keys: {what}")
    for override in overrides:
        apply_override(raw, override)
    settings, seed = raw.get("quantize") or {}, raw.get("seed", 0)
    if not isinstance(settings, dict) or type(seed) is not int:
        raise InputError("quantize must be a section and seed a whole number")
    return settings, seed


def source_folder(source: str) -> Path:
    """The folder of a model, local or downloaded. Raises InputError where there is none."""
    from compress.sources import model_folder

    return model_folder(source)


def stream(
    source: Path, out: Path, settings: dict[str, Any], *, seed: int, layers: Path
) -> StreamSummary:
    """Quantizes the checkpoint folder `source` to `out`; finished layers are kept in `layers`.

    Raises PlanError with all problems before any work; InputError where `out` is something else
    than a model folder.
    """
    from compress.stream_plan import plan_stream
    from compress.streaming import compress_stream_layer, look_through, write_stream

    plan = plan_stream(source, settings, out)
    facts = look_through(plan)
    keys = {
        job.source.key: _layer_key(job, facts[job.source.key].sha256, seed) for job in plan.layers
    }
    store, found, errors = LayerStore(layers), 0, []
    store.require_writable(key for key in keys.values() if not store.path(key).is_file())

    def layer_file(job: "StreamLayer") -> Path:
        nonlocal found
        key = keys[job.source.key]
        report = store.find(key)
        found += report is not None
        if report is None:
            own_seed = layer_seed(seed, job.layer.ref.name)
            report = compress_stream_layer(job, seed=own_seed, out_path=store.path(key))
        errors.append(report["relative_distortion"] * facts[job.source.key].energy)
        return store.path(key)

    written = write_stream(plan, facts, out, layer_file)
    energy = sum(facts[job.source.key].energy for job in plan.layers)
    return StreamSummary(
        layers=len(plan.layers),
        found=found,
        others=len(plan.rest),
        bytes_before=plan.bytes,
        bytes_after=written,
        relative_distortion=sum(errors) / energy if energy else 0.0,
        largest=plan.largest,
        peak_memory=peak_memory(),
    )


def _layer_key(job: "StreamLayer", weight: str, seed: int) -> str:
    """Not that of the pipeline's layers: a large weight is fitted in another way."""
    from compress.codecs.registry import codec_class

    settings = job.layer.settings
    return caching.key(
        kind="streamed layer",
        weight=weight,
        dtype=str(job.source.dtype),
        shape=list(job.layer.ref.shape),
        transposed=job.layer.ref.transposed,
        settings=settings.model_dump(mode="json"),
        seed=layer_seed(seed, job.layer.ref.name),
        code=caching.method_version(codec_class(settings.method).__module__),
    )
