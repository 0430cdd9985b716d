"""All methods on a vision transformer that reads handwritten digits, at equal bytes.

    python -m benchmarks.digits                      every cell that is missing, then the table
    python -m benchmarks.digits --rows product-16x uniform-8x --seeds 1

A ViT of 800,000 weights, built from its config and trained on the digits that scikit-learn ships
(8 x 8 pixels; 1,437 to learn from, 360 held out), then compressed by the rows of
benchmarks/methods/, all its layers in one group, and distilled from what it was. Cells are kept:
one that was stopped is done again.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from transformers import PreTrainedModel, ViTConfig, ViTForImageClassification, set_seed

from benchmarks.efficientnet import Images
from benchmarks.glue_cells import Spec, digest, read_spec
from benchmarks.glue_run import machine, write
from benchmarks.markdown import fill, table
from benchmarks.vision_methods import METHODS, Network, recovery, results, rows
from compress.atomic import new_folder
from compress.config import TrainingConfig
from compress.trainer import train

DOCS = Path(__file__).parent.parent / "docs"
LAYERS = ("**.attention.*", "**.mlp.*", "**.patch_embeddings.projection", "classifier")
HELD_OUT = 360
TRAINING = TrainingConfig(
    max_steps=1000, batch_size=64, learning_rate=1e-3, checkpoint_steps=1000, bf16=False
)
NEAR = {"8x": ("8x",), "16x": ("16x", "15x", "13x"), "24x": ("24x",)}  # sizes of the rows


def digits() -> tuple[Images, Tensor, Tensor]:
    """To learn from; held-out images (HELD_OUT, 1, 8, 8) of -1 to 1, and their classes."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / 8 - 1
    train_rows, held_out = train_test_split(
        range(len(labels)), test_size=HELD_OUT, stratify=labels, random_state=0
    )
    classes = torch.from_numpy(labels).long()
    return Images(images[train_rows], classes[train_rows]), images[held_out], classes[held_out]


def trained(seed: int, rows: Images, folder: Path, training: TrainingConfig) -> PreTrainedModel:
    """In eval mode; read from `folder` where it has been trained before."""
    if not folder.is_dir():
        set_seed(seed)
        config = ViTConfig(
            image_size=8, patch_size=2, num_channels=1, hidden_size=128, num_hidden_layers=4,
            num_attention_heads=4, intermediate_size=512,
        )  # fmt: skip
        config.num_labels = 10
        model = ViTForImageClassification(config)
        work = folder.with_name(f"{folder.name}-training")
        train(model, None, rows, training, work_dir=work, seed=seed, title=f"train, seed {seed}")
        with new_folder(folder, holds="config.json") as temporary:
            model.save_pretrained(temporary)
    return ViTForImageClassification.from_pretrained(folder).eval()


def network(seed: int, cache: Path, training: TrainingConfig) -> Network:
    """Judged by its accuracy on the held-out digits, in percent."""
    rows, images, classes = digits()
    about = {"training": training.model_dump(mode="json"), "seed": seed}
    model = trained(seed, rows, cache / f"vit-{digest(about)[:16]}", training)

    @torch.inference_mode()
    def judge(compressed: PreTrainedModel) -> dict[str, Any]:
        right = compressed(pixel_values=images).logits.argmax(1) == classes
        return {"accuracy": 100 * float(right.double().mean())}

    return Network(model, rows.pixels, judge, about)


def show(spec: Spec, found: Sequence[Mapping[str, Mapping[str, Any]]]) -> str:
    """A line for each method, by size the accuracy before and after: means over the seeds."""
    head = ["", *(f"{size} {when}" for size in NEAR for when in ("before", "after"))]
    labels = {row.name.rpartition("-")[0]: row.label.rpartition(",")[0] for row in spec.rows}
    lines = []
    for base, label in labels.items():
        line = [label]
        for sizes in NEAR.values():
            cells = [own[f"{base}-{x}"] for own in found for x in sizes if f"{base}-{x}" in own]
            for when in ("before", "after"):
                values = [cell[when]["accuracy"] for cell in cells if when in cell]
                line.append(_mean(values) if values and len(values) == len(found) else "")
        if any(line[1:]):
            lines.append(line)
    return table(head, lines)


def _mean(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table, writes it into docs/models.md and the JSON into docs/benchmarks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="only these")
    parser.add_argument("--seeds", type=int, default=3, help="so many, from 0 on (3)")
    parser.add_argument("--steps", type=int, default=120, help="of the distillation (120)")
    parser.add_argument("--cache", type=Path, default=Path(".shrinkflow/digits"))
    parser.add_argument("--out", type=Path, default=DOCS / "benchmarks", help="for the JSON")
    given = parser.parse_args(argv)
    spec = read_spec(METHODS)
    every = rows(spec, LAYERS)
    if unknown := set(given.rows or ()) - set(every):
        parser.error(f"no rows {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    learned = recovery(given.steps, learning_rate=1e-4, centroid_learning_rate=5e-4)
    found, whole = [], []
    for seed in range(given.seeds):
        teacher = network(seed, given.cache, TRAINING)
        whole.append(teacher.judge(teacher.model)["accuracy"])
        found.append(results(teacher, every, learned, given.cache, given.rows))
    text = f"Uncompressed: {_mean(whole)}.\n\n{show(spec, found)}"
    print(text)
    write(given.out / "digits.json", {"uncompressed": whole, "cells": found, **machine()})
    if (page := given.out.parent / "models.md").is_file():
        fill(page, "benchmarks.digits", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
