"""Memory, time and disk of every stage of a run, from the formulas of compress.estimates."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil, prod
from pathlib import Path
from typing import Any

from compress import estimates
from compress.blocks import row_size
from compress.calibration.measure import MEMORY, needed
from compress.calibration.measure import ROWS as CALIBRATION
from compress.codecs.registry import codec_class
from compress.config import Params, TrainingConfig
from compress.estimates import Shape
from compress.selection import SelectedLayer

# Rows are padded to the longest of a batch of similar rows, not to max_length.
FILLED = 0.5


def memory_by_stage(
    params: Params, shape: Shape, layers: Sequence[SelectedLayer]
) -> dict[str, int]:
    """Peak bytes of the stages that need much."""
    length, quantize = params.data.max_length, params.quantize
    most_rows = max(quantize.recovery(group.name).batch_size for group in quantize.groups)
    kinds = sensitivities(params)
    words = not params.data.kind.classes
    sizes = [_elements_and_blocks(layer, kinds[layer.group] != "none") for layer in layers]
    moments = sum(4 * _moments(layer) for layer in layers)
    memory = {
        "finetune": estimates.training_memory(
            shape, params.finetune.batch_size, length, words=words
        ),
        "quantize": max(
            estimates.clustering_memory(sizes, params.quantize.workers),
            estimates.recovery_memory(shape, most_rows, length, words=words) + _learning(layers),
            estimates.BASE + 4 * shape.parameters + min(moments, 2 * MEMORY),
        ),
    }
    if params.pretrain.enabled:
        pretrain = params.pretrain
        memory["pretrain"] = estimates.training_memory(
            shape, pretrain.batch_size, pretrain.data.max_length, words=True
        )
    return memory


def sensitivities(params: Params) -> dict[str, str]:
    """What the errors of each group are weighted by."""
    quantize = params.quantize
    return {group.name: quantize.sensitivity_of(group) for group in quantize.groups}


def _elements_and_blocks(layer: SelectedLayer, weighted: bool) -> tuple[int, int]:
    """An element whose error is weighted counts as two; moments are as many elements more."""
    size = prod(layer.ref.shape)
    elements = (2 if weighted else 1) * size + _moments(layer)
    return elements, size // getattr(layer.settings, "block_size", 1)


def _learning(layers: Sequence[SelectedLayer]) -> int:
    """What the layers of one group keep, at most, where more than floats learns."""
    by_group: dict[str, int] = {}
    for layer in layers:
        own = codec_class(layer.settings.method).learning_memory(layer.ref.shape, layer.settings)
        by_group[layer.group] = by_group.get(layer.group, 0) + own
    return max(by_group.values(), default=0)


def _moments(layer: SelectedLayer) -> int:
    """Second moments of the inputs that the layer's method needs."""
    learned = codec_class(layer.settings.method).needed(layer.settings) == "moments"
    return row_size(layer.ref.shape) ** 2 if learned and layer.ref.has_moments else 0


def seconds_by_stage(
    params: Params, shape: Shape, layers: Sequence[SelectedLayer], rows: Mapping[str, int]
) -> dict[str, float | None]:
    """Seconds of the stages that take long; None where the number of rows is not known.

    `rows` counts train, validation and pretrain; what it lacks comes from the params.
    """
    speed, length = estimates.machine_speed(), int(params.data.max_length * FILLED)
    train = rows.get("train", params.data.max_rows)
    found: dict[str, float | None] = {}
    # A language model multiplies every token with the vocabulary as well.
    wide = replace(shape, matrices=shape.matrices + shape.hidden * shape.vocabulary)
    if params.pretrain.enabled:
        pretrain = params.pretrain
        count = rows.get("pretrain", pretrain.data.max_rows)
        cut = int(pretrain.data.max_length * FILLED)
        found["pretrain"] = _training(wide, pretrain, count, cut, speed)
    if not params.data.kind.classes:
        shape = wide
    found["finetune"] = _training(shape, params.finetune, train, length, speed)

    names = [group.name for group in params.quantize.groups]
    recoveries = [
        _training(shape, params.quantize.recovery(name), train, length, speed, teacher=True)
        for name in names
    ]
    clustering = sum(_clustering_operations(layer) for layer in layers)
    clustering /= speed * estimates.CLUSTER_EFFICIENCY
    clustering += estimates.CLUSTER_SECONDS * len(layers)
    clustering += _measuring(params, shape, layers, train, length) / (speed * estimates.EFFICIENCY)
    known = [seconds for seconds in recoveries if seconds is not None]
    found["quantize"] = clustering + sum(known) if len(known) == len(names) else None

    held_out = rows.get("validation", params.data.holdout or params.data.max_validation_rows)
    work = 2 * shape.operations((held_out or 0) * length, length)  # dense and compressed
    found["evaluate"] = work / (speed * estimates.EFFICIENCY) if held_out else None
    return found


def _training(
    shape: Shape,
    config: TrainingConfig,
    rows: int | None,
    length: int,
    speed: float,
    *,
    teacher: bool = False,
) -> float | None:
    if config.max_steps is not None:
        steps = config.max_steps
    elif rows is not None:
        steps = ceil(rows / config.batch_size * config.epochs)
    else:
        return None
    return estimates.training_seconds(
        shape, steps, config.batch_size, length, speed, forwards=4.0 if teacher else 3.0
    )


def _measuring(
    params: Params, shape: Shape, layers: Sequence[SelectedLayer], rows: int | None, length: int
) -> float:
    """Operations of the statistics that fits are given: once a kind, not once a group."""
    kinds = set(sensitivities(params).values())
    forwards = {"activations": 1.0, "fisher": 3.0}
    tokens = min(rows or CALIBRATION, CALIBRATION) * length
    passes = sum(forwards[kind] for kind in kinds - {"none"})
    passes += len(needed((layer.ref.name, layer.ref.shape, layer.settings) for layer in layers))
    if any(_moments(layer) and layer.ref.kind == "embedding" for layer in layers):
        passes += 3.0  # gradients at their output
    moments = sum(_moments(layer) for layer in layers)
    return passes * shape.operations(tokens, length) + 2.0 * tokens * moments


def _clustering_operations(layer: SelectedLayer) -> float:
    """2 operations for each weight, centroid and iteration; where moments are there, for each
    weight, other weight of its row and iteration."""
    settings: Any = layer.settings
    if _moments(layer):
        return 2.0 * prod(layer.ref.shape) * row_size(layer.ref.shape) * settings.iterations
    centroids = getattr(settings, "codebook_size", 1)
    return 2.0 * prod(layer.ref.shape) * centroids * getattr(settings, "iterations", 1)


def disk_needed(params: Params, dense: int, compressed: int) -> int:
    """Bytes of disk: two dense models and the compressed one, each also in DVC's cache; in training
    up to three checkpoints of weights and two moments; a student for each group; a copy in MLflow.
    """
    return dense * (2 * 2 + 3 * 3 + len(params.quantize.groups)) + 3 * compressed


def resource_problems(
    memory: int, disk: int, workspace: Path, remedy: str = "lower batch_size or max_length"
) -> list[str]:
    """What this machine lacks for that much memory, and that much disk at `workspace`."""
    problems = []
    if memory > (free := estimates.free_memory()):
        problems.append(
            f"about {_size(memory)} of memory are needed, {_size(free)} are free; {remedy}"
        )
    place = workspace.absolute()
    while not place.exists():
        place = place.parent
    if disk > (free := shutil.disk_usage(place).free):
        problems.append(
            f"about {_size(disk)} of disk are needed, {_size(free)} are free at {place}; make room"
        )
    return problems


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
