"""A model without weights, from config.json alone, and where its tensors are in a checkpoint."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from compress.errors import InputError
from compress.selection import LayerRef

TASKS = {
    "sequence-classification": "AutoModelForSequenceClassification",
    "image-classification": "AutoModelForImageClassification",
    "masked-lm": "AutoModelForMaskedLM",
}


def tensor_key(ref: LayerRef, keys: Iterable[str], prefix: str = "") -> str | None:
    """The key of the layer's weight among the `keys` of a checkpoint, None where it has none.

    A checkpoint of a bare encoder lacks the task model's `prefix` ("bert"), and a tied weight may
    be stored under any of its names.
    """
    known = set(keys)
    for name in ref.names:
        key = f"{name}.weight"
        for candidate in (key, key.removeprefix(f"{prefix}."), f"{prefix}.{key}"):
            if candidate in known:
                return candidate
    return None


def skeleton(
    folder: Path | str, task: str = "sequence-classification", num_labels: int | None = None
) -> nn.Module:
    """The task's model on the meta device (no memory, ties in place), made from config.json alone.

    For a folder that holds a bare encoder this is the model that will be made from it, so the names
    are those of the task model. Raises InputError where transformers cannot build it.
    """
    import transformers

    if task not in TASKS:
        raise InputError(f"unknown task `{task}`; there are {', '.join(TASKS)}")
    changes = {} if num_labels is None else {"num_labels": num_labels}
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True, **changes
        )
        with torch.device("meta"):
            return getattr(transformers, TASKS[task]).from_config(config, dtype=torch.float32)
    except Exception as error:  # a config.json can be wrong in any way
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{folder}: no {task} model can be made from it: {reason}") from None
