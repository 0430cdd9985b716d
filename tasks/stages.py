"""What every stage reads and writes: the table behind dvc.yaml, the flows and the cache keys."""

from dataclasses import dataclass

from compress.config import Params, QuantizeConfig

# Quant-Noise uses the blocks and codebooks that quantizing will use.
NOISE_PARAMS = ("noise", "quantize.groups", "quantize.block_size", "quantize.codebook_size")
# Everything of the section but `workers`, which changes no result.
QUANTIZE_PARAMS = tuple(f"quantize.{f}" for f in QuantizeConfig.model_fields if f != "workers")


@dataclass(frozen=True)
class Stage:
    """Paths are relative to the workspace; `code` are modules whose imports are followed."""

    description: str
    code: tuple[str, ...]
    params: tuple[str, ...]
    deps: tuple[str, ...] = ()
    outs: tuple[str, ...] = ()
    plots: tuple[str, ...] = ()


TABLE = {
    "prepare": Stage(
        description="rows of text -> tokenized parquet",
        code=("compress.data",),
        params=("model", "data", "pretrain.enabled", "pretrain.data"),
        outs=("artifacts/data",),
    ),
    "pretrain": Stage(
        description="continued masked-LM training with Quant-Noise",
        code=("compress.training",),
        params=("model", "pretrain", "seed", *NOISE_PARAMS),
        deps=("artifacts/data/pretrain.parquet",),
        outs=("artifacts/pretrained",),
        plots=("pretrain",),
    ),
    "finetune": Stage(
        description="the task, with Quant-Noise: the teacher of what follows",
        code=("compress.training",),
        params=("finetune", "seed", *NOISE_PARAMS),
        deps=("artifacts/data/train.parquet", "artifacts/data/labels.json", "artifacts/pretrained"),
        outs=("artifacts/finetuned",),
        plots=("finetune",),
    ),
    "quantize": Stage(
        description="group by group: cluster the layers, then finetune centroids and rest",
        code=("compress.quantization", "compress.checkpoint", "compress.codecs.*"),
        params=("data.metric", "seed", *QUANTIZE_PARAMS),
        deps=(
            "artifacts/data/train.parquet",
            "artifacts/data/validation.parquet",
            "artifacts/finetuned",
        ),
        outs=("artifacts/compressed",),
        plots=("layers", "usage", "groups", "quantize"),
    ),
    "evaluate": Stage(
        description="score and size, compressed against uncompressed",
        code=("compress.evaluation", "compress.checkpoint", "compress.codecs.*"),
        params=("data.metric",),
        deps=(
            "artifacts/data/validation.parquet",
            "artifacts/finetuned",
            "artifacts/compressed",
        ),
    ),
    "register": Stage(
        description="report, MLflow version, champion or challenger",
        code=("tasks.report", "tasks.tracking"),
        params=("gate", "tracking"),
        deps=(
            "artifacts/compressed",
            "artifacts/metrics/evaluate.json",
            "artifacts/metrics/quantize.json",
        ),
        outs=("artifacts/report.html",),
    ),
}


def tracked_params() -> list[str]:
    """Every key of params.yaml that a stage depends on, once."""
    return list(dict.fromkeys(name for stage in TABLE.values() for name in stage.params))


def values(params: Params, stage: str) -> dict[str, object]:
    """What the stage depends on, defaults filled in, as plain JSON values."""
    full = params.model_dump(mode="json")
    return {name: _get(full, name) for name in TABLE[stage].params}


def _get(node: object, name: str) -> object:
    for part in name.split("."):
        assert isinstance(node, dict)
        node = node[part]
    return node
