"""What a run would do, before it does anything: layers, bytes, memory, time, every problem at once.

Built from config.json (a model without weights) and the params; the weights are only looked
through for NaN and Inf.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compress import resources
from compress.allocation.allocate import budget_problem, extremes, limit_of
from compress.allocation.sizes import FileSizes
from compress.calibration.measure import ROWS as CALIBRATION
from compress.codecs.registry import codec_class
from compress.config import Params
from compress.depth import depth_notes, reduced
from compress.errors import CheckpointError, InputError
from compress.estimates import Shape
from compress.manifest import LayerEntry, install
from compress.selection import SelectedLayer, compressible, select
from compress.skeleton import skeleton
from compress.source_weights import weight_problems
from compress.stack import find_stack
from compress.stored import stored_bytes


@dataclass(frozen=True)
class LayerPlan:
    """One weight to be compressed; `summary` is its method with the settings that matter, `bytes`
    are those of its tensors as stored, codes packed."""

    name: str
    aliases: tuple[str, ...]
    kind: str
    shape: tuple[int, ...]
    group: str
    method: str
    summary: str
    bits_per_weight: float
    bytes: int


@dataclass(frozen=True)
class Plan:
    """The whole of it. Sizes in bytes.

    total_bytes is the model.safetensors that will be written (header included) with packed codes:
    entropy coding makes it smaller. dense_bytes is that of the uncompressed model in fp32, all its
    layers in it, rest_bytes what is not in `layers`. memory and seconds are
    estimates by stage (compress.estimates says how), None where the number of rows is not known;
    disk is what a run may need for a while. problems forbid the run, notes do not.
    """

    layers: tuple[LayerPlan, ...]
    rest_bytes: int
    total_bytes: int
    dense_bytes: int
    ratio: float
    bits_per_weight: float
    memory: dict[str, int]
    seconds: dict[str, float | None]
    disk: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def peak_memory(self) -> int:
        """Of the stage that needs most."""
        return max(self.memory.values())

    @property
    def total_seconds(self) -> float:
        """Of all stages whose length is known."""
        return sum(seconds or 0.0 for seconds in self.seconds.values())


def make_plan(
    params: Params,
    folder: Path | str,
    *,
    num_labels: int | None = None,
    rows: Mapping[str, int] | None = None,
    workspace: Path | str = ".",
    chosen: Mapping[str, Any] | None = None,
) -> Plan:
    """The plan for the model in `folder` (compress.sources.model_folder gives it).

    num_labels: classes of the task, else as config.json says; rows: number of rows by split
    (train, validation, pretrain) for the time estimate; workspace: whose disk must hold the run;
    chosen: the settings of each layer that a budget pays for, without which a plan with a budget is
    that of the least file there is.
    Problems are listed in the plan, not raised; InputError only where no model can be made.
    """
    folder, rows = Path(folder), rows or {}
    model = skeleton(folder, params.data.task, num_labels)
    dense_bytes = stored_bytes(model, "float32")
    shape = Shape.of(model, _matrices(model))
    problems, notes = [], []
    try:
        refs = [layer.ref for layer in select(model, params.quantize).layers]
        problems += weight_problems(folder, refs, getattr(model, "base_model_prefix", ""))
    except CheckpointError as error:
        problems.append(str(error))
    section = "noise.layerdrop"
    try:
        if params.noise.layerdrop:
            find_stack(model)
        section = "depth"
        smaller = reduced(model, params.depth)
        notes, model = depth_notes(model, params.depth), smaller
    except InputError as error:
        problems.append(f"{section}: {error}")
    selection = select(model, params.quantize)
    problems += selection.problems

    layers = list(selection.layers)
    if params.quantize.budget is not None:
        least, largest = extremes(layers, params.quantize)
        layers = [replace(layer, settings=(chosen or least)[layer.ref.name]) for layer in layers]
        if unfit := [problem for layer in layers for problem in layer.problems()]:
            problems += unfit
        else:
            sizes = FileSizes(model, layers, params.quantize.rest)
            ends = sizes.exact(least), sizes.exact(largest)
            limit = limit_of(params.quantize.budget, dense_bytes)
            problems += filter(None, [budget_problem(limit, *ends)])
    layers = [layer for layer in layers if not layer.problems()]
    with torch.device("meta"):
        install(model, [LayerEntry.of(layer) for layer in layers])
    total_bytes = stored_bytes(model, params.quantize.rest)
    planned = tuple(_plan_layer(layer) for layer in layers)

    memory = resources.memory_by_stage(params, shape, layers)
    disk = resources.disk_needed(params, dense_bytes, total_bytes)
    problems += resources.resource_problems(max(memory.values()), disk, Path(workspace))
    weights = sum(prod(layer.shape) for layer in planned)
    stored = sum(layer.bytes for layer in planned)
    return Plan(
        layers=planned,
        rest_bytes=total_bytes - stored,
        total_bytes=total_bytes,
        dense_bytes=dense_bytes,
        ratio=dense_bytes / total_bytes,
        bits_per_weight=8 * stored / weights if weights else 0.0,
        memory=memory,
        seconds=resources.seconds_by_stage(params, shape, layers, rows),
        disk=disk,
        problems=tuple(problems),
        notes=(
            *notes,
            *selection.notes,
            *_weighting_notes(params, layers),
            *_calibration_notes(layers),
        ),
    )


def _weighting_notes(params: Params, layers: Sequence[SelectedLayer]) -> list[str]:
    """What the errors of the groups are weighted by, and of which methods they are not."""
    notes = []
    for group, kind in resources.sensitivities(params).items():
        if kind == "none":
            continue
        methods = {layer.settings.method for layer in layers if layer.group == group}
        deaf = sorted(m for m in methods if not codec_class(m).weighs)
        notes += [f"group {group}: {method} does not weight errors" for method in deaf]
        if len(deaf) < len(methods):
            notes.append(f"group {group}: errors are weighted by {kind}, from {CALIBRATION:,} rows")
    return notes


def _calibration_notes(layers: Sequence[SelectedLayer]) -> list[str]:
    """Of methods that look at what flows through the layers."""
    notes = []
    for group in dict.fromkeys(layer.group for layer in layers):
        own = [layer for layer in layers if layer.group == group]
        needs = {
            (x.settings.method, codec_class(x.settings.method).needed(x.settings)) for x in own
        }
        for method, kind in sorted((m, k) for m, k in needs if k is not None):
            notes.append(f"group {group}: {method} looks at {CALIBRATION:,} rows ({kind})")
            plain = [x.ref.name for x in own if kind == "moments" and not x.ref.has_moments]
            if plain:
                notes.append(f"{', '.join(plain)}: nearest values, as it is the head, too")
    return notes


def _plan_layer(layer: SelectedLayer) -> LayerPlan:
    ref, settings = layer.ref, layer.settings
    size = codec_class(settings.method).tensor_bytes(ref.shape, settings)
    return LayerPlan(
        name=ref.name,
        aliases=ref.aliases,
        kind=ref.kind,
        shape=ref.shape,
        group=layer.group,
        method=settings.method,
        summary=settings.summary(),
        bits_per_weight=8 * size / prod(ref.shape),
        bytes=size,
    )


def _matrices(model: nn.Module) -> int:
    """Weights that every token is multiplied with: those of linear layers."""
    return sum(prod(ref.shape) for ref in compressible(model) if ref.kind == "linear")
