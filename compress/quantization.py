"""The stage `quantize` in four steps: start with the layers that are left, compress one weight,
recover one group, write the result.

Iterative product quantization (Fan et al. 2020, section 3.2): the layers of a group are clustered,
then the centroids and everything still uncompressed are finetuned, then the next group follows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel, set_seed

from compress.augmentation import TokenReplacement
from compress.checkpoint import save_compressed, stored_bytes
from compress.config import CodecConfig, DepthConfig, Params, RecoveryConfig
from compress.depth import reduced
from compress.distillation import DistillationTrainer
from compress.errors import CheckpointError
from compress.evaluation import evaluate_model
from compress.fitting import Weight, fit_weights
from compress.layer_file import read_layer, write_layer
from compress.learning import learning
from compress.loading import load_model, load_tokenizer, read_config
from compress.manifest import read_entries
from compress.replacement import replace
from compress.rows import Rows, keep_aside
from compress.selection import compressible, weight_of
from compress.trainer import is_first, train
from compress.verify import is_whole


def start(depth: DepthConfig, teacher_dir: Path, out_dir: Path) -> Path:
    """The folder of the student before its first group: the finetuned model, or, where `depth` says
    so, one that is written to `out_dir`: the layers that are left, shared weights once.

    Raises InputError where the model cannot be made smaller so.
    """
    if depth == DepthConfig():
        return teacher_dir
    if not is_whole(out_dir):
        student = reduced(load_model(teacher_dir), depth)
        save_compressed(student, out_dir, tokenizer=load_tokenizer(teacher_dir), rest="float32")
    return out_dir


def compress_layer(
    checkpoint: Path, tensor: str, settings: CodecConfig, *, seed: int, out_path: Path
) -> dict[str, Any]:
    """Opens one tensor of a safetensors file, fits its codec and writes one layer file.

    Returns the FitReport as a dictionary. Raises CheckpointError where file or tensor is missing,
    InputError where the weight is not finite.
    """
    weight = Weight(f"{tensor} in {checkpoint}", read_tensor(checkpoint, tensor), seed)
    [report] = compress_weights([weight], settings, [out_path])
    return report


def compress_weights(
    weights: Sequence[Weight], settings: CodecConfig, out_paths: Sequence[Path]
) -> list[dict[str, Any]]:
    """Fits weights of one shape, together where there is a GPU, and writes a layer file for each.

    Each file is written as soon as its weight is fitted; equal work gives equal bytes. Returns the
    FitReports as dictionaries; the files hold them without the seconds. Raises as `fit_weights`.
    """
    reports = []
    for (weight, codec, report), path in zip(
        fit_weights(weights, settings), out_paths, strict=True
    ):
        metrics = asdict(report)
        kept = {key: value for key, value in metrics.items() if key != "seconds"}
        write_layer(path, codec, {"seed": weight.seed, "report": kept})
        reports.append(metrics)
    return reports


def read_tensor(checkpoint: Path, tensor: str, transposed: bool = False) -> Tensor:
    """One tensor of a safetensors file as float32, as it is or `transposed`; nothing else of the
    file is in memory."""
    try:
        with safe_open(checkpoint, framework="pt") as file:
            found = file.get_tensor(tensor).float()
            return found.T.contiguous() if transposed else found
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{checkpoint}: cannot read `{tensor}` ({error})") from None


def recover(
    params: Params,
    group: str,
    *,
    teacher_dir: Path,
    student_dir: Path,
    layer_files: Mapping[str, Path],
    data_dir: Path,
    out_dir: Path,
    work_dir: Path,
) -> dict[str, Any]:
    """Puts the compressed layers of `group` into the student and finetunes it against the teacher.

    `layer_files` maps layer names (module paths) to layer files. Writes the student, compressed as
    far as it is, to `out_dir`; resumes from `work_dir`. Returns the scores before and after on the
    held-out rows, the bytes of the file were it final, and the training curve.
    """
    set_seed(params.seed)
    tokenizer = load_tokenizer(student_dir)
    teacher, student = load_model(teacher_dir), load_model(student_dir)
    recovery, validation = params.quantize.recovery(group), None
    every = Rows(data_dir / "train.parquet")
    rows: Dataset[Any] = every
    if recovery.patience:
        rows, validation = keep_aside(every, recovery.validation_rows)
    replaced = None
    if recovery.augment:
        texts = (every[i]["input_ids"] for i in range(len(every)))
        replaced = TokenReplacement.of(
            texts, tokenizer.all_special_ids, recovery.augment, params.seed
        )
    dense = insert(student, layer_files, recovery)
    before = evaluate_model(student, tokenizer, data_dir, params.data.metric)
    set_seed(params.seed)
    with learning(student, dense) as learners:
        del dense
        trained = train(
            student,
            tokenizer,
            rows,
            recovery,
            work_dir=work_dir,
            seed=params.seed,
            title=f"recover {group}",
            refresh=learners.refresh if recovery.reassign_steps else None,
            refresh_steps=recovery.reassign_steps,
            trainer_class=DistillationTrainer,
            parameters=parameter_groups(student, recovery),
            validation=validation,
            patience=recovery.patience,
            teacher=teacher,
            recovery=recovery,
            replaced=replaced,
        )
    after = evaluate_model(student, tokenizer, data_dir, params.data.metric)
    if is_first():
        save_compressed(student, out_dir, tokenizer=tokenizer, rest="float32")
    return {
        "group": group,
        "score_before_finetune": before["score"],
        "score": after["score"],
        "bytes": stored_bytes(student, params.quantize.rest),
        "curve": trained.curve,
    }


def insert(
    model: PreTrainedModel,
    layer_files: Mapping[str, Path],
    recovery: RecoveryConfig | None = None,
) -> dict[str, Tensor]:
    """Replaces the named layers of `model` (and what is tied to them) by their compressed form.

    Returns the uncompressed weights of those that learn in a `recovery`.
    """
    refs, learned = {ref.name: ref for ref in compressible(model)}, {}
    for name, path in sorted(layer_files.items()):
        codec, _ = read_layer(path)
        if recovery is not None and codec.learns(recovery):
            learned[name] = weight_of(model, refs[name]).detach().contiguous()
        replace(model, refs[name], codec)
    return learned


def parameter_groups(model: nn.Module, recovery: RecoveryConfig) -> list[dict[str, Any]]:
    """Optimizer groups: centroids and the like at their own rates, matrices with decay, all else
    without."""
    codecs: dict[float, list[nn.Parameter]] = {1.0: []}  # by rate
    matrices, vectors = [], []
    for name, parameter in model.named_parameters():
        path, of_codec, own = name.rpartition(".codec.")
        if of_codec and own != "latent":
            codec: Any = model.get_submodule(f"{path}.codec")
            codecs.setdefault(codec.rate(own), []).append(parameter)
        elif of_codec or parameter.ndim < 2:
            vectors.append(parameter)
        else:
            matrices.append(parameter)
    rate, decay = recovery.centroid_learning_rate, recovery.weight_decay
    return [
        *({"params": own, "lr": rate * each, "weight_decay": 0.0} for each, own in codecs.items()),
        {"params": matrices, "lr": recovery.learning_rate, "weight_decay": decay},
        {"params": vectors, "lr": recovery.learning_rate, "weight_decay": 0.0},
    ]


def layer_sizes(folder: Path) -> dict[str, int]:
    """Bytes on disk of every compressed layer of the model in `folder`, by name.

    Raises CheckpointError where its config.json does not say.
    """
    config = read_config(folder).get("quantization_config") or {}
    return {entry.name: entry.stored_size() for entry in read_entries(config.get("layers", []))}


def finalize(params: Params, student_dir: Path, out_dir: Path, card: str | None) -> dict[str, Any]:
    """Writes the compressed model as it is handed out: the rest in fp16, with its model card."""
    tokenizer, model = load_tokenizer(student_dir), load_model(student_dir)
    save_compressed(model, out_dir, tokenizer=tokenizer, rest=params.quantize.rest, card=card)
    return {"bytes": (out_dir / "model.safetensors").stat().st_size}
