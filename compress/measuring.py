"""What is measured of the finetuned model before it is compressed, without tasks and stores: for a
size budget, and what weights the errors of its layers. Each is kept, and measured once."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from compress.allocation.allocate import Allocation, allocate
from compress.allocation.candidates import layer_candidates
from compress.allocation.curves import measure
from compress.allocation.sensitivity import sensitivity
from compress.allocation.sizes import FileSizes
from compress.atomic import new_file
from compress.calibration.measure import asked, needed
from compress.calibration.measure import measure as measure_sensitivity
from compress.calibration.sensitivity_file import read_digests
from compress.config import Params
from compress.errors import CheckpointError, InputError
from compress.loading import load_model, load_tokenizer
from compress.progress import progress_bar
from compress.quantization import read_tensor
from compress.rows import Rows
from compress.seeds import layer_seed
from compress.selection import SelectedLayer, select
from compress.skeleton import skeleton, tensor_key
from compress.source_weights import tensor_files, weight_files
from compress.verify import file_digest

LOSS = {"temperature", "logits_weight", "hidden_weight"}  # what sensitivities depend on


@dataclass(frozen=True)
class Calibration:
    """By layer, for those that have one: the file with its sensitivity, and the file with the
    statistics that its method needs. In each its tensor has the layer's name."""

    sensitivities: Mapping[str, Path] = field(default_factory=dict)
    statistics: Mapping[str, Path] = field(default_factory=dict)

    def of(self, name: str) -> tuple[Tensor | None, Tensor | None]:
        """The sensitivity and the statistics of a layer."""
        files = self.sensitivities.get(name), self.statistics.get(name)
        sensitivity, statistics = (read_tensor(file, name) if file else None for file in files)
        return sensitivity, statistics


def chosen_layers(
    params: Params, model_dir: Path, data_dir: Path, kept: Path, *, dense: int | None = None
) -> tuple[list[SelectedLayer], Allocation | None, Calibration]:
    """The layers with their settings: those of the params, or those that the budget pays for; the
    allocation of the budget; what was measured for the fits.

    What was measured is kept in `kept`. dense: bytes of the whole model in fp32, where that in
    `model_dir` is smaller. Raises InputError for layers that cannot be compressed so, and for a
    budget that nothing fits.
    """
    model, config = skeleton(model_dir), params.quantize
    selection = select(model, config)
    if selection.problems:
        raise InputError("\n".join(selection.problems))
    layers = list(selection.layers)
    found = _calibrated(params, layers, model_dir, data_dir, kept)
    if config.budget is None:
        return layers, None, found
    measured = _measured(params, layers, model_dir, data_dir / "train.parquet", found, kept)
    sizes = FileSizes(model, layers, config.rest, dense)
    spent = allocate(sizes, layers, measured["curves"], measured["sensitivity"], config.budget)
    return [replace(x, settings=spent.settings[x.ref.name]) for x in layers], spent, found


def tensors_of(layers: Sequence[SelectedLayer], folder: Path) -> dict[str, tuple[Path, str, bool]]:
    """The file and the key of the weight of each layer in a model folder, and whether it is
    transposed there, by name: what `read_tensor` takes.

    Raises CheckpointError where one is missing.
    """
    files, found = tensor_files(folder), {}
    prefix = getattr(skeleton(folder), "base_model_prefix", "")
    for layer in layers:
        key = tensor_key(layer.ref, files, prefix)
        if key is None:
            raise CheckpointError(f"{folder}: no weight of {layer.ref.name} in it")
        found[layer.ref.name] = files[key], key, layer.ref.transposed
    return found


def _calibrated(
    params: Params, layers: Sequence[SelectedLayer], model_dir: Path, data_dir: Path, kept: Path
) -> Calibration:
    """What params and methods ask for of the layers."""
    rows = data_dir / "train.parquet"

    def files(passes: Iterable[tuple[str, list[str]]]) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for kind, names in passes:
            key = _key(params, [rows, *weight_files(model_dir)], layers=names)
            path = kept / f"{kind}-{key}.safetensors"
            digests = read_digests(path)
            if digests is None:
                digests = measure_sensitivity(kind, model_dir, rows, names, params, path)
            found |= dict.fromkeys(digests, path)
        return found

    grouped = ((layer.ref.name, layer.group, layer.settings) for layer in layers)
    shaped = ((layer.ref.name, layer.ref.shape, layer.settings) for layer in layers)
    return Calibration(files(asked(params.quantize, grouped).items()), files(needed(shaped)))


def _key(params: Params, files: Iterable[Path], **parts: Any) -> str:
    """Names what is measured with these files, the loss of the recovery, the seed and `parts`."""
    parts |= {
        "files": [file_digest(file) for file in files],
        "loss": params.quantize.finetune.model_dump(include=LOSS),
        "seed": params.seed,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _measured(
    params: Params,
    layers: Sequence[SelectedLayer],
    folder: Path,
    rows: Path,
    calibration: Calibration,
    kept: Path,
) -> dict[str, Any]:
    """{curves, sensitivity}, each by layer; from `kept` where equal inputs were measured before."""
    config, tensors = params.quantize, tensors_of(layers, folder)
    candidates = {
        x.ref.name: layer_candidates(x.ref.shape, x.settings, config, x.group) for x in layers
    }
    choices = {n: [s.model_dump(mode="json") for s in found] for n, found in candidates.items()}
    names = [
        {name: file.name for name, file in files.items()}
        for files in (calibration.sensitivities, calibration.statistics)
    ]
    key = _key(params, [rows, *weight_files(folder)], candidates=choices, weighed=names)
    path = kept / f"measured-{key}.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))

    def curve(name: str) -> dict[str, Any]:
        seed, (own, inputs) = layer_seed(params.seed, name), calibration.of(name)
        weight = read_tensor(*tensors[name])
        return measure(weight, candidates[name], seed=seed, sensitivity=own, statistics=inputs)

    curves = {}
    with (
        progress_bar("measure layers", len(layers)) as bar,
        ThreadPoolExecutor(config.workers) as pool,
    ):
        for name, found in zip(candidates, pool.map(curve, candidates), strict=True):
            curves[name] = found
            bar.advance()
    model, tokenizer, refs = load_model(folder), load_tokenizer(folder), [x.ref for x in layers]
    weights = sensitivity(model, tokenizer, Rows(rows), refs, config.finetune, seed=params.seed)
    with new_file(path) as temporary:
        temporary.write_text(json.dumps({"curves": curves, "sensitivity": weights}))
    return json.loads(path.read_text(encoding="utf-8"))
