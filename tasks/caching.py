"""The one policy of cache keys: content of the inputs, parameters that matter, version of the code.

Never a path, a time or a run id: equal work has an equal key in every run, branch and folder.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.config import CodecConfig, Params
from tasks import source, stages

if TYPE_CHECKING:
    from torch import Tensor

# The settings are in the keys as they are: how they are declared and read counts for nothing.
SETTINGS = ("compress.config", "compress.params_yaml")


def key(**parts: Any) -> str:
    """SHA-256 of named parts, which are plain JSON values; the order of the names is nothing."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def layer_key(
    *,
    weight: str,
    shape: Sequence[int],
    settings: CodecConfig,
    seed: int,
    code: str,
    sensitivity: str | None = None,
    statistics: str | None = None,
) -> str:
    """Names one finished layer. `weight` is the hash of its bytes, `code` that of its method;
    `sensitivity` names the weights of its errors, `statistics` those of its inputs, if any."""
    measured = {"sensitivity": sensitivity, "statistics": statistics}
    return key(
        kind="layer",
        weight=weight,
        shape=list(shape),
        settings=settings.model_dump(mode="json"),
        seed=seed,
        code=code,
        **{name: value for name, value in measured.items() if value is not None},
    )


def method_version(module: str) -> str:
    """Version of a codec's code: its module and everything that takes part in fitting.

    The settings are in the key as they are, so the reading of params.yaml counts for nothing.
    """
    return source.code_version([module], without=SETTINGS)


def group_key(*, group: str, before: str, layers: Mapping[str, str], params: Params) -> str:
    """Names a recovered group: the state before it, its layers' keys, how it is finetuned."""
    return key(
        kind="group",
        before=before,
        layers=dict(layers),
        recovery=params.quantize.recovery(group).model_dump(mode="json"),
        rest=params.quantize.rest,
        metric=params.data.metric,
        seed=params.seed,
        code=_stage_code("quantize"),
    )


def training_key(stage: str, params: Params, inputs: Mapping[str, str]) -> str:
    """Names the unfinished state of `pretrain` or `finetune`: only its own work is resumed."""
    return key(
        kind=stage,
        training=getattr(params, stage).model_dump(mode="json"),
        noise=params.noise.model_dump(mode="json"),
        blocks=params.noise_settings().model_dump(mode="json"),
        layers=[group.layers for group in params.quantize.groups],
        share=params.depth.share,
        seed=params.seed,
        inputs=dict(inputs),
        code=_stage_code(stage),
    )


def stage_version(stage: str, params: Params) -> str:
    """What of code and parameters a stage depends on, in meaning: not text, not other stages'."""
    return key(code=_stage_code(stage), values=stages.values(params, stage))


def _stage_code(stage: str) -> str:
    return source.code_version(stages.TABLE[stage].code, without=SETTINGS)


def hash_values(weight: "Tensor") -> str:
    """SHA-256 of the values of a float32 tensor on the CPU, whatever file they came from."""
    return hashlib.sha256(weight.contiguous().numpy().data.cast("B")).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_folder(folder: Path) -> str:
    """SHA-256 over the names and contents of all files of a folder."""
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    return key(files=[[f.relative_to(folder).as_posix(), hash_file(f)] for f in files])
