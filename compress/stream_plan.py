"""What a streaming quantization would do: from config.json and the headers of the weights alone."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from compress import estimates, resources
from compress.codecs.product import WHOLE
from compress.codecs.registry import codec_class
from compress.config import GroupConfig, QuantizeConfig
from compress.errors import CheckpointError, InputError, PlanError
from compress.params_yaml import describe
from compress.selection import SelectedLayer, compressible, select
from compress.shards import INDEX
from compress.skeleton import declared_model, tensor_key
from compress.source_weights import weight_files
from compress.tensor_file import StoredTensor, check_index, read_header

WORTH = 0.75  # of the size in fp16: without groups of the user's, what compresses to it or less


@dataclass(frozen=True)
class StreamLayer:
    """A layer to compress and the tensor that holds its weight."""

    layer: SelectedLayer
    source: StoredTensor

    def rows(self, low: int, high: int) -> Tensor:
        """A part of the weight, as codecs see it."""
        if not self.layer.ref.transposed:
            return self.source.rows(low, high)
        return torch.cat([part[:, low:high] for _, part in self.source.chunks()]).T


@dataclass(frozen=True)
class StreamPlan:
    """`layers` are compressed; `rest`, under the names of the model, is copied. The folder's other
    tensors are second copies of tied weights. `bytes`: of all tensors of the source."""

    folder: Path
    config: dict[str, Any]
    layers: tuple[StreamLayer, ...]
    rest: Mapping[str, StoredTensor]
    precision: str
    bytes: int
    notes: tuple[str, ...]

    @property
    def largest(self) -> int:
        """Bytes of the largest tensor of the source."""
        return max(t.bytes for t in (*self.rest.values(), *(job.source for job in self.layers)))


def plan_stream(
    folder: Path | str, settings: Mapping[str, Any], out: Path, disk_share: int = 2
) -> StreamPlan:
    """The plan for a checkpoint folder and the section `quantize` of a params file.

    Without `groups` in the settings every layer is selected that becomes a quarter smaller or more.
    disk_share: how often the output lies on the disk of `out` (itself, finished layers).
    Raises PlanError with all problems: patterns, blocks, missing or damaged shards, tensors that
    lack or differ, memory, disk. InputError where no model can be made of the folder.
    """
    folder = Path(folder)
    model, config = declared_model(folder)
    tensors, problems = _tensors(folder)
    try:
        quantize = _with_groups(model, settings)
    except ValidationError as error:
        raise InputError(f"quantize: {describe(error)}") from None
    if quantize.budget is not None:
        raise InputError(
            "quantize.budget: streaming measures no layers and keeps no budget; "
            "give the settings, with -S quantize.budget=null"
        )
    if any(quantize.sensitivity_of(group) != "none" for group in quantize.groups):
        raise InputError(
            "quantize.sensitivity: streaming sees no data to measure it on; "
            "leave it out, with -S quantize.sensitivity=none"
        )
    for group in quantize.groups:
        own = quantize.settings(group)
        if codec_class(own.method).needed(own) is not None:
            raise InputError(
                f"quantize: group {group.name}: {own.method} looks at what flows through its "
                "layers, and streaming sees no data; choose another method, or no error_feedback"
            )
    selection = select(model, quantize)
    problems += selection.problems
    prefix = getattr(model, "base_model_prefix", "")
    layers = []
    for layer in selection.layers:
        key, wanted = tensor_key(layer.ref, tensors, prefix), layer.ref.stored_shape
        if key is None:
            problems += [] if problems else [f"{layer.ref.name} has no tensor in {folder}"]
        elif tensors[key].shape != wanted or not tensors[key].dtype.is_floating_point:
            found = f"{tensors[key].dtype} {tensors[key].shape}"
            problems.append(f"{key} is {found}, config.json says {wanted}")
        else:
            layers.append(StreamLayer(layer, tensors[key]))
    if folder.resolve() == out.resolve():
        problems.append(f"the output would replace its source {folder}; give another folder")
    plan = StreamPlan(
        folder=folder,
        config=config,
        layers=tuple(layers),
        rest=_rest(model, tensors, layers, prefix),
        precision=quantize.rest,
        bytes=sum(t.bytes for t in tensors.values()),
        notes=selection.notes,
    )
    if not problems:
        disk = disk_share * output_bytes(plan)
        problems += resources.resource_problems(
            memory_needed(plan), disk, out, "end other programs"
        )
    if problems:
        raise PlanError(problems)
    return plan


def output_bytes(plan: StreamPlan) -> int:
    """Bytes of all tensors as they will be written, headers not counted."""
    codecs = sum(
        codec_class(job.layer.settings.method).tensor_bytes(job.layer.ref.shape, job.layer.settings)
        for job in plan.layers
    )
    half = plan.precision == "float16"
    return codecs + sum(
        math.prod(t.shape) * (2 if half and t.dtype.is_floating_point else t.dtype.itemsize)
        for t in plan.rest.values()
    )


def memory_needed(plan: StreamPlan) -> int:
    """Peak bytes, roughly: clustering a bounded sample, one layer's codes packed and unpacked."""
    needs = [0]
    for job in plan.layers:
        weights = math.prod(job.layer.ref.shape)
        blocks = weights // getattr(job.layer.settings, "block_size", 1)
        needs.append(16 * min(weights, WHOLE) + 8 * blocks)
    return estimates.BASE + max(needs)


def _tensors(folder: Path) -> tuple[dict[str, StoredTensor], list[str]]:
    """Every tensor of the folder by key, and what is wrong with its files."""
    found: dict[str, StoredTensor] = {}
    try:
        files = weight_files(folder)
    except CheckpointError as error:
        return {}, [str(error)]
    problems = []
    for path in files:
        try:
            found.update(read_header(path))
        except CheckpointError as error:
            problems.append(str(error))
    if not problems and files != [folder / "model.safetensors"]:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        problems += check_index(index["weight_map"], found)
    return found, problems


def _rest(
    model: nn.Module, tensors: Mapping[str, StoredTensor], layers: list[StreamLayer], prefix: str
) -> dict[str, StoredTensor]:
    """What is copied, under the model's own names; a key that the model lacks keeps its name."""
    names = set(model.state_dict())
    gone = {f"{name}.weight" for job in layers for name in job.layer.ref.names}
    rest = {}
    for key, tensor in tensors.items():
        candidates = (key, f"{prefix}.{key}", key.removeprefix(f"{prefix}."))
        name = next((c for c in candidates if c in names), key)
        if name not in gone:
            rest[name] = tensor
    return dict(sorted(rest.items()))


def _with_groups(model: nn.Module, settings: Mapping[str, Any]) -> QuantizeConfig:
    """The section `quantize`; without groups one of all layers that compress to WORTH of fp16."""
    default = GroupConfig(name="all", layers=["**"])
    quantize = QuantizeConfig.model_validate({"groups": [default.model_dump()], **settings})
    if "groups" in settings:
        return quantize
    config = quantize.settings(default)
    method = codec_class(config.method)
    names = [
        ref.name
        for ref in compressible(model)
        if not ref.depthwise
        and not method.problems(ref.shape, config)
        and method.tensor_bytes(ref.shape, config) <= WORTH * 2 * math.prod(ref.shape)
    ]
    if not names:
        raise InputError("no layer of this model can be compressed with these settings")
    return quantize.model_copy(update={"groups": [GroupConfig(name="all", layers=names)]})
