"""The stages `pretrain` and `finetune`: training with Quant-Noise on the layers of the plan.

Layers that share their weights do so from the first step on. All the same the models are written
with tensors for every layer: ordinary models, of the size that compressed ones are compared with.
"""

import json
import shutil
from math import gcd
from pathlib import Path
from typing import Any

from transformers import (
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from compress.atomic import new_folder
from compress.blocks import row_size
from compress.config import NoiseBlocks, Params, TrainingConfig
from compress.loading import load_model, load_tokenizer, quietly
from compress.noise import quant_noise
from compress.rows import Rows
from compress.selection import select, uses
from compress.sources import model_folder
from compress.stack import share_layers, whole_state
from compress.trainer import Trained, is_first, train


def pretrain(params: Params, base: Path, data_dir: Path, out_dir: Path, work_dir: Path) -> Trained:
    """Continued language-model training with Quant-Noise; the model goes to `out_dir`.

    With `pretrain.enabled: false` the source model is copied as it is.
    """
    folder = model_folder(params.model.source, params.model.revision, base)
    tokenizer = load_tokenizer(folder)
    if not params.pretrain.enabled:
        with new_folder(out_dir) as temporary:
            _copy_model(folder, temporary)
            tokenizer.save_pretrained(temporary)
        return Trained(steps=0, loss=0.0, curve=[])
    set_seed(params.seed)
    kind, collator = params.data.kind.pretraining, None
    model = load_model(folder, kind, whole=False)
    if kind == "masked-lm":
        collator = DataCollatorForLanguageModeling(
            tokenizer, mlm_probability=params.pretrain.mlm_probability
        )
    return _train_with_noise(
        params, params.pretrain, model, tokenizer, data_dir / "pretrain.parquet",
        out_dir, work_dir, title="pretrain", collator=collator,
    )  # fmt: skip


def finetune(
    params: Params, model_dir: Path, data_dir: Path, out_dir: Path, work_dir: Path
) -> Trained:
    """The task, with Quant-Noise, on the model in `model_dir`: the teacher of what follows."""
    set_seed(params.seed)
    tokenizer = load_tokenizer(model_dir)
    task = json.loads((data_dir / "labels.json").read_text(encoding="utf-8"))
    labels, changes = task["labels"], {}
    if labels:
        changes = {"id2label": dict(enumerate(labels)), "label2id": _numbers(labels)}
    model = load_model(model_dir, task["task"], whole=not labels, **changes)
    return _train_with_noise(
        params, params.finetune, model, tokenizer, data_dir / "train.parquet",
        out_dir, work_dir, title="finetune", collator=None,
    )  # fmt: skip


def _numbers(labels: list[str]) -> dict[str, int]:
    return {name: i for i, name in enumerate(labels)}


def _train_with_noise(
    params: Params,
    config: TrainingConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Path,
    out_dir: Path,
    work_dir: Path,
    *,
    title: str,
    collator: Any,
) -> Trained:
    share_layers(model, params.depth.share)
    with quant_noise(model, noisy_layers(model, params), params.noise, seed=params.seed) as noise:
        trained = train(
            model,
            tokenizer,
            Rows(rows),
            config,
            work_dir=work_dir,
            seed=params.seed,
            title=title,
            collator=collator,
            refresh=noise.refresh,
            advance=noise.advance,
            refresh_steps=params.noise.refresh_steps,
        )
    if is_first():
        with new_folder(out_dir) as temporary:
            quietly(model.save_pretrained, temporary, state_dict=whole_state(model))
            tokenizer.save_pretrained(temporary)
    return trained


def noisy_layers(model: PreTrainedModel, params: Params) -> dict[str, NoiseBlocks]:
    """The layers that will be quantized, with the blocks of their noise.

    Where noise.block_size does not divide a row, the greatest size that divides both is taken.
    """
    settings, layers = params.noise_settings(), select(model, params.quantize).layers
    return {
        name: settings.model_copy(
            update={"block_size": gcd(settings.block_size, row_size(layer.ref.shape))}
        )
        for layer in layers
        for name in uses(model, layer.ref)
    }


def _copy_model(folder: Path, target: Path) -> None:
    for pattern in ("config.json", "*.safetensors", "*.safetensors.index.json"):
        for file in folder.glob(pattern):
            shutil.copyfile(file, target / file.name)
