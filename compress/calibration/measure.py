"""One statistic of all layers of a model, from rows of its training data to a file."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.blocks import row_size
from compress.calibration.activations import activations
from compress.calibration.fisher import fisher
from compress.calibration.moments import moments
from compress.calibration.neurons import neurons
from compress.calibration.output_moments import output_moments
from compress.calibration.sensitivity_file import write_sensitivities
from compress.codecs.registry import codec_class
from compress.config import CodecConfig, Params, QuantizeConfig
from compress.loading import load_model, load_tokenizer
from compress.progress import progress_bar
from compress.rows import Rows, batches
from compress.selection import compressible

ROWS, BATCH_SIZE = 1024, 16
MEMORY = 1 << 30  # bytes of moments that are measured in one pass over the rows


def asked(
    quantize: QuantizeConfig, layers: Iterable[tuple[str, str, CodecConfig]]
) -> dict[str, list[str]]:
    """The kinds that the params ask for, each with the names of its layers; `layers` are (name,
    group, settings). Those of methods that weight nothing have none."""
    kinds = {group.name: quantize.sensitivity_of(group) for group in quantize.groups}
    found: dict[str, list[str]] = {}
    for name, group, settings in layers:
        if kinds[group] != "none" and codec_class(settings.method).weighs:
            found.setdefault(kinds[group], []).append(name)
    return found


def needed(
    layers: Iterable[tuple[str, Sequence[int], CodecConfig]],
) -> list[tuple[str, list[str]]]:
    """What the methods of the layers, (name, shape, settings), need to know of their inputs: kinds,
    each with the names of layers that are measured in one pass."""
    passes: list[tuple[str, list[str]]] = []
    room: dict[str, int] = {}
    for name, shape, settings in layers:
        kind = codec_class(settings.method).needed(settings)
        if kind is None:
            continue
        size = 4 * row_size(shape) ** 2 if kind == "moments" else 0
        if kind not in room or room[kind] < size:
            passes.append((kind, []))
            room[kind] = MEMORY
        next(names for own, names in reversed(passes) if own == kind).append(name)
        room[kind] -= size
    return passes


def measure(
    kind: str, model_dir: Path, rows: Path, names: Sequence[str], params: Params, out: Path
) -> dict[str, str]:
    """Measures `kind` (activations | fisher | moments | neurons) of the named layers of the model
    in `model_dir` on at most ROWS rows, evenly spaced, of a parquet file; how often words occur, on
    all of them. Writes `out`.

    Returns the SHA-256 of the tensor of each layer that has one. The same for the same inputs,
    kind of machine and number of threads.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(model_dir).eval().to(device)
    refs = [ref for ref in compressible(model) if ref.name in set(names)]
    table = Rows(rows)
    made = batches(table, load_tokenizer(model_dir), ROWS, BATCH_SIZE)

    def inputs() -> Iterator[dict[str, Tensor]]:
        with progress_bar(f"measure {kind}", len(made)) as bar:
            for batch in made:
                given = {name: t.to(device) for name, t in batch.items()}
                if kind != "neurons":
                    given.pop("labels", None)
                elif given["labels"].ndim > 1:  # next tokens: all rows are of one class
                    given["labels"] = torch.zeros_like(given["labels"][:, 0])
                yield given
                bar.advance()

    if kind == "moments":
        recovery, words = params.quantize.finetune, [ref for ref in refs if ref.kind == "embedding"]
        found = moments(model, inputs(), refs) if len(words) < len(refs) else {}
        if rated := [ref for ref in words if ref.has_moments]:
            found |= output_moments(model, inputs(), rated, recovery, seed=params.seed)
        return write_sensitivities(out, found, torch.float32)
    if kind == "neurons":
        found = neurons(model, inputs(), refs, model.config.num_labels)
        return write_sensitivities(out, found, torch.float32)
    if kind == "activations":
        found = activations(model, inputs(), refs, _look_ups(table, model))
    else:
        found = fisher(model, inputs(), refs, params.quantize.finetune, seed=params.seed)
    return write_sensitivities(out, found)


def _look_ups(rows: Rows, model: PreTrainedModel) -> Tensor:
    """How often each row of the input embedding is looked up, int64 (words,)."""
    size = len(model.get_input_embeddings().get_parameter("weight"))
    every = chain.from_iterable(rows[i]["input_ids"] for i in range(len(rows)))
    return torch.bincount(torch.tensor(list(every), dtype=torch.int64), minlength=size)
