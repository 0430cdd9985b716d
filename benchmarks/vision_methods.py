"""The rows of benchmarks/methods/ on a network of images: budget, fit, distillation, file, verdict.

All compressed layers are in one group; one for whose shape the method has no settings stays in
fp16. What benchmarks/efficientnet_methods.py and benchmarks/digits.py have in common.
"""

import copy
import shutil
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.efficientnet import BATCH, Calibration, calibrated, distil, fit, wants_moments
from benchmarks.glue_cells import FOLDER, Spec, cells, digest
from benchmarks.glue_run import read, write
from benchmarks.pictures import Curve, Point
from compress.allocation.allocate import allocate
from compress.allocation.candidates import layer_candidates
from compress.allocation.curves import measure
from compress.allocation.sensitivity import sensitivity_on
from compress.allocation.sizes import FileSizes
from compress.checkpoint import save_compressed
from compress.codecs.registry import codec_class
from compress.config import QuantizeConfig, RecoveryConfig
from compress.errors import InputError
from compress.progress import progress_bar
from compress.seeds import layer_seed
from compress.selection import SelectedLayer, select, weight_of

METHODS = FOLDER.parent / "methods"
SENSITIVITY = "sensitivity"  # in place of a method's name


@dataclass(frozen=True)
class Network:
    """The uncompressed one, images (n, channels, h, w) to learn from, what is said of a compressed
    one (JSON's types), and names of all of it, which change when any of it does."""

    model: PreTrainedModel
    images: Tensor
    judge: Callable[[PreTrainedModel], dict[str, Any]]
    about: Mapping[str, Any]
    _measured: dict[bool, Calibration] = field(default_factory=dict, init=False, repr=False)

    def calibration(self, layers: Sequence[SelectedLayer]) -> Calibration:
        """Of these layers, the same at every call: measured once with moments, once without."""
        wanted = any(map(wants_moments, layers))
        if wanted not in self._measured:
            self._measured[wanted] = calibrated(self.model, layers, self.images)
        return self._measured[wanted]

    @property
    def bytes(self) -> int:
        """Of its parameters in float32."""
        return 4 * sum(p.numel() for p in self.model.parameters())


def recovery(steps: int, learning_rate: float, centroid_learning_rate: float) -> RecoveryConfig:
    """Distillation of logits alone."""
    return RecoveryConfig(
        max_steps=steps, batch_size=BATCH, learning_rate=learning_rate, temperature=1.0,
        centroid_learning_rate=centroid_learning_rate, hidden_weight=0.0,
    )  # fmt: skip


def rows(spec: Spec, layers: Sequence[str]) -> dict[str, QuantizeConfig]:
    """By name, with the method of their first group for all `layers` (patterns); without variants,
    and those whose layers belong together, as in a feed-forward block."""
    found = {}
    variants = {row.name for row in spec.rows if row.extra}
    for cell in cells(spec, 1):
        raw = cell.raw["quantize"]
        if cell.kind == "ipq" and cell.task == spec.tasks[0].name and cell.row not in variants:
            group = raw["groups"][0] | {"layers": list(layers)}
            config = QuantizeConfig.model_validate(raw | {"groups": [group]})
            if not codec_class(config.settings(config.groups[0]).method).has_ties():
                found[cell.row] = config
    return found


def results(
    network: Network,
    every: Mapping[str, QuantizeConfig],
    recovery: RecoveryConfig,
    cache: Path,
    wanted: Collection[str] | None = None,
) -> dict[str, Any]:
    """What is known of the rows, by name; those that are `wanted` (None: all) are made if they
    lack. Cells are kept in `cache`: one that was stopped is done again."""
    found: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    for name, config in every.items():
        parts = {
            "quantize": config.model_dump(mode="json", exclude={"finetune", "workers"}),
            "recovery": recovery.model_dump(),
            "network": dict(network.about),
        }
        file = cache / f"{digest(parts)}.json"
        known = read(file)
        if known is None and (wanted is None or name in wanted):
            print(f"{name} ...", file=sys.stderr, flush=True)
            try:
                layers = chosen(network, config, curves, name.rpartition("-")[0])
            except InputError as error:
                known = {"problem": str(error)}
            else:
                known = cell(network, layers, recovery, cache / file.stem)
                shutil.rmtree(cache / file.stem)
            write(file, known)
        if known is not None:
            found[name] = known
    return found


def curves(
    spec: Spec,
    found: Sequence[Mapping[str, Mapping[str, Any]]],
    value: Callable[[Mapping[str, Any]], float],
) -> list[Curve]:
    """A curve for each method: the `value` of the verdict after the distillation, at every size
    that all of `found`, one a seed, have."""
    made: dict[str, list[Point]] = {}
    for row in spec.rows:
        cells = [own[row.name] for own in found if "after" in own.get(row.name, {})]
        if cells and len(cells) == len(found):
            size = sum(cell["bytes"] for cell in cells) / len(cells)
            values = [value(cell["after"]) for cell in cells]
            made.setdefault(row.curve or row.label, []).append(Point(size, values))
    return [Curve(label, points) for label, points in made.items()]


def chosen(
    network: Network, config: QuantizeConfig, curves: dict[str, Any], base: str
) -> list[SelectedLayer]:
    """The layers with the settings that the budget pays for. `curves`, by method, gets those of
    `base`, and what an error of each layer does. Raises InputError where no settings fit."""
    every = select(network.model, config).layers
    layers = [x for x in every if layer_candidates(x.ref.shape, x.settings, config, x.group)]
    if SENSITIVITY not in curves:
        curves[SENSITIVITY] = _sensitivity(network, every)
    network.calibration(every)  # what the first method cannot compress another one can
    if base not in curves:
        curves[base] = _curves(network, layers, config)
    sizes = FileSizes(network.model, layers, config.rest)
    assert config.budget is not None
    found = allocate(sizes, layers, curves[base], curves[SENSITIVITY], config.budget).settings
    return [replace(layer, settings=found[layer.ref.name]) for layer in layers]


def _sensitivity(network: Network, layers: Sequence[SelectedLayer]) -> dict[str, Any]:
    """What an error of each layer does to the logits, on as many images as the calibration has."""
    batches = [{"pixel_values": part} for part in network.images[: 8 * BATCH].split(BATCH)]
    model = copy.deepcopy(network.model)
    return sensitivity_on(model, batches, [layer.ref for layer in layers], recovery(1, 1e-4, 1e-4))


def _curves(
    network: Network, layers: Sequence[SelectedLayer], config: QuantizeConfig
) -> dict[str, Any]:
    weights, statistics = network.calibration(layers)
    found = {}
    with progress_bar("measure layers", len(layers)) as bar:
        for layer in layers:
            name, shape = layer.ref.name, layer.ref.shape
            found[name] = measure(
                weight_of(network.model, layer.ref),
                layer_candidates(shape, layer.settings, config, layer.group),
                seed=layer_seed(0, name),
                sensitivity=weights[name],
                statistics=statistics.get(name),
            )
            bar.advance()
    return found


def cell(
    network: Network, layers: Sequence[SelectedLayer], recovery: RecoveryConfig, work: Path
) -> dict[str, Any]:
    """Bytes on disk, minutes, and the verdict before and after the distillation."""
    started = time.perf_counter()
    model = copy.deepcopy(network.model)
    dense = fit(model, layers, network.calibration(layers))
    found: dict[str, Any] = {"before": network.judge(model)}
    distil(model, dense, network.model, network.images, recovery, work / "training")
    folder = save_compressed(model, work / "model")
    saved = type(model).from_pretrained(folder).eval()  # what is judged is the file
    found["after"] = network.judge(saved)
    found["bytes"] = (folder / "model.safetensors").stat().st_size
    return found | {"minutes": (time.perf_counter() - started) / 60}
