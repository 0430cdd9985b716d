"""Layer streaming: a checkpoint larger than memory is quantized one tensor at a time.

Nothing is trained: this is post-training quantization. Each tensor is read in parts, its finished
codec lies in a layer file until its shard is written, and the folder appears whole or not at all.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress.atomic import new_folder
from compress.codecs.registry import codec_class
from compress.codecs.report import sum_of_squares
from compress.errors import PlanError
from compress.layer_file import read_layer, write_layer
from compress.manifest import LayerEntry
from compress.precision import stored
from compress.progress import progress_bar
from compress.quantizer import ShrinkflowConfig
from compress.shards import SHARD_BYTES, Shard, ShardWriter, plan_shards, write_index
from compress.stored import Layout
from compress.stream_plan import StreamLayer, StreamPlan
from compress.tensor_file import StoredTensor
from compress.verify import file_digest

HALF_MAX = torch.finfo(torch.float16).max
COPIED = {".json", ".txt", ".model", ".jinja", ".tiktoken"}  # of the tokenizer, and the like


@dataclass(frozen=True)
class TensorFacts:
    """Of one tensor's values: SHA-256 of its bytes, sum of squares, largest magnitude."""

    sha256: str
    energy: float
    largest: float


def look_through(plan: StreamPlan) -> dict[str, TensorFacts]:
    """Reads every tensor once, in parts: facts by key of the source.

    Raises PlanError that lists the tensors with NaN or Inf, and the ones beyond fp16 that would be
    compressed.
    """
    sources = [*(job.source for job in plan.layers), *plan.rest.values()]
    compressed = {job.source.key for job in plan.layers}
    facts, problems = {}, []
    with progress_bar("read", sum(s.bytes for s in sources), unit="bytes") as bar:
        for source in sources:
            facts[source.key] = found = _facts(source, bar.advance)
            if not found.largest < float("inf"):  # NaN compares false
                problems.append(f"{source.key} has NaN or Inf; {source.path} is damaged")
            elif source.key in compressed and found.largest > HALF_MAX:
                problems.append(f"{source.key} reaches {found.largest:g}, beyond fp16 (65504)")
    if problems:
        raise PlanError(problems)
    return facts


def _facts(source: StoredTensor, advance: Callable[[int], None]) -> TensorFacts:
    digest, energy, largest = hashlib.sha256(), 0.0, 0.0
    for _, rows in source.chunks():
        digest.update(rows.view(-1).view(torch.uint8).numpy().data)
        advance(rows.numel() * rows.element_size())
        if rows.is_floating_point() and rows.numel():
            values = rows.float()
            low, high = (float(v) for v in values.aminmax())
            top = max(-low, high)
            largest = top if not top <= largest else largest  # NaN stays
            energy += sum_of_squares(values)
    return TensorFacts(digest.hexdigest(), energy, largest)


def compress_stream_layer(job: StreamLayer, *, seed: int, out_path: Path) -> dict[str, Any]:
    """Compresses one tensor that is read in parts and writes one layer file; its report."""
    settings = job.layer.settings
    codec, report = codec_class(settings.method).fit_rows(
        job.rows, job.layer.ref.shape, settings, seed=seed
    )
    metrics = asdict(report)
    kept = {key: value for key, value in metrics.items() if key != "seconds"}
    write_layer(out_path, codec, {"seed": seed, "report": kept})
    return metrics


def write_stream(
    plan: StreamPlan,
    facts: Mapping[str, TensorFacts],
    out: Path,
    layer_file: Callable[[StreamLayer], Path],
    *,
    shard_bytes: int = SHARD_BYTES,
) -> int:
    """Writes the compressed model to the folder `out`; `layer_file` makes or finds a layer's file.

    Compressed layers come first, in the order of the model, then all else. Floats of 32 bits that
    are copied become fp16 where `rest` says so and every value fits; those of 16 bits stay as they
    are. Returns the bytes of the weights. The same inputs give the same bytes.
    """
    half = plan.precision == "float16"
    dtypes = {
        name: torch.float16
        if half and t.dtype == torch.float32 and facts[t.key].largest <= HALF_MAX
        else t.dtype
        for name, t in plan.rest.items()
    }
    jobs = list(plan.layers)
    parts = [_codec_layout(job) for job in jobs]
    parts += [{name: (dtypes[name], t.shape)} for name, t in plan.rest.items()]
    shards = plan_shards(parts, shard_bytes)
    with (
        new_folder(out) as folder,
        progress_bar("quantize", _source_bytes(plan), unit="bytes") as bar,
    ):
        for shard in shards:
            with ShardWriter(folder / shard.name, shard.layout) as writer:
                for i in shard.parts:
                    if i < len(jobs):
                        bar.update(note=jobs[i].layer.ref.name)
                        _write_codec(writer, jobs[i], layer_file(jobs[i]))
                        bar.advance(jobs[i].source.bytes)
                    else:
                        (name,) = parts[i]
                        _copy(writer, name, plan.rest[name], dtypes[name])
                        bar.advance(plan.rest[name].bytes)
        write_index(folder, shards)
        _copy_files(plan.folder, folder)
        _write_config(plan, folder, shards)
        return sum((folder / shard.name).stat().st_size for shard in shards)


def _source_bytes(plan: StreamPlan) -> int:
    sources = [*(job.source for job in plan.layers), *plan.rest.values()]
    return sum(source.bytes for source in sources)


def _codec_layout(job: StreamLayer) -> Layout:
    """Names, dtypes and shapes of a layer's tensors as stored, before it is compressed."""
    settings = job.layer.settings
    with torch.device("meta"):
        tensors = codec_class(settings.method).empty(job.layer.ref.shape, settings).state_dict()
    return {
        f"{job.layer.ref.name}.codec.{name}": (
            torch.float16 if t.is_floating_point() else t.dtype,
            tuple(t.shape),
        )
        for name, t in tensors.items()
    }


def _write_codec(writer: ShardWriter, job: StreamLayer, path: Path) -> None:
    codec, _ = read_layer(path)
    for name, tensor in codec.state_dict().items():
        writer.write(f"{job.layer.ref.name}.codec.{name}", stored(tensor))


def _copy(writer: ShardWriter, name: str, source: StoredTensor, dtype: torch.dtype) -> None:
    for low, rows in source.chunks():
        writer.write(name, _as(rows, dtype), low)


def _as(rows: Tensor, dtype: torch.dtype) -> Tensor:
    return rows if rows.dtype == dtype else rows.to(dtype)


def _copy_files(source: Path, folder: Path) -> None:
    """Tokenizer, generation settings and so on: what is no weight and no index of weights."""
    for file in sorted(source.iterdir()):
        known = file.suffix in COPIED and not file.name.endswith(".index.json")
        if file.is_file() and known and file.name != "config.json":
            shutil.copyfile(file, folder / file.name)


def _write_config(plan: StreamPlan, folder: Path, shards: list[Shard]) -> None:
    entries = [LayerEntry.of(job.layer).plain() for job in plan.layers]
    digests = {shard.name: file_digest(folder / shard.name) for shard in shards}
    quantization = ShrinkflowConfig(entries, plan.precision, sha256=digests)
    config = plan.config | {"quantization_config": quantization.to_dict()}
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
