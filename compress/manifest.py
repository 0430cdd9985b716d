"""The explicit list of compressed layers that config.json carries, and building a model from it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from compress.codecs.base import Codec
from compress.codecs.registry import codec_class
from compress.errors import CheckpointError, InputError
from compress.layers import (
    CompressedConv2d,
    CompressedEmbedding,
    CompressedLayer,
    dense_weight,
    kind_of,
)
from compress.params_yaml import describe
from compress.replacement import replace
from compress.selection import LayerRef, SelectedLayer

Size = Annotated[int, Field(gt=0, lt=1 << 31)]
_KINDS = {
    CompressedConv2d: "conv2d",
    CompressedEmbedding: "embedding",
}


class LayerEntry(BaseModel):
    """One compressed weight: where it is, what it replaces, how it is compressed.

    coded: bytes of its codes on disk where they are entropy-coded, else they are packed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    aliases: tuple[str, ...] = ()
    kind: str
    shape: Annotated[tuple[Size, ...], Field(min_length=2, max_length=4)]
    method: str
    settings: dict[str, Any]
    coded: Size | None = None

    @classmethod
    def of(cls, layer: SelectedLayer) -> "LayerEntry":
        """The entry of a layer that is to be compressed."""
        return cls(
            name=layer.ref.name,
            aliases=layer.ref.aliases,
            kind=layer.ref.kind,
            shape=layer.ref.shape,
            method=layer.settings.method,
            settings=layer.settings.model_dump(mode="json"),
        )

    def plain(self) -> dict[str, Any]:
        """JSON values; nothing of coding where the codes are packed, as in format_version 1."""
        return self.model_dump(mode="json", exclude={"coded"} if self.coded is None else None)

    def stored_size(self) -> int:
        """Bytes of the layer's tensors on disk. Raises CheckpointError as `empty_codec`."""
        with torch.device("meta"):
            return self.empty_codec().stored_size()

    def empty_codec(self) -> Codec:
        """The codec, its tensors still to be read. Raises CheckpointError for bad settings."""
        try:
            cls = codec_class(self.method)
            settings = cls.Settings(**self.settings)
            if problems := cls.problems(self.shape, settings):
                raise InputError("; ".join(problems))
            codec = cls.empty(self.shape, settings)
            if self.coded is not None:
                codec.expect_coded(self.coded)
            return codec
        except ValidationError as error:
            raise CheckpointError(f"config.json, layer {self.name}: {describe(error)}") from None
        except InputError as error:
            raise CheckpointError(f"config.json, layer {self.name}: {error}") from None


def read_entries(raw: Iterable[Any]) -> list[LayerEntry]:
    """The entries of a config.json. Raises CheckpointError for what is none, or is there twice."""
    entries = []
    for i, item in enumerate(raw):
        try:
            entries.append(LayerEntry.model_validate(item))
        except ValidationError as error:
            raise CheckpointError(f"config.json, compressed layer {i}: {describe(error)}") from None
    names = Counter(name for entry in entries for name in (entry.name, *entry.aliases))
    if twice := sorted(name for name, count in names.items() if count > 1):
        raise CheckpointError(f"config.json lists {', '.join(twice)} twice")
    return entries


def list_entries(
    model: nn.Module, streams: Mapping[str, Tensor] | None = None
) -> list[dict[str, Any]]:
    """The compressed layers of `model` in plain JSON values, in the order of the model.

    `streams`: the tensors of codes that are stored coded (compress.stored.coded_tensors).
    """
    coded = {name: len(stream) for name, stream in (streams or {}).items()}
    layers = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, CompressedLayer)
    }
    entries: dict[int, LayerEntry] = {}
    for name, layer in layers.items():
        if id(layer.codec) in entries or layer.tied:
            continue
        codec = layer.codec
        entries[id(codec)] = LayerEntry(
            name=name,
            aliases=tuple(n for n, other in layers.items() if other.codec is codec and n != name),
            kind=_KINDS.get(type(layer), "linear"),  # type: ignore[arg-type]
            shape=codec.shape,
            method=codec.method,
            settings=codec.settings.model_dump(mode="json"),
            coded=coded.get(f"{name}.codec.{codec.coded_tensor}"),
        )
    return [entry.plain() for entry in entries.values()]


def install(model: nn.Module, entries: Iterable[LayerEntry], *, strict: bool = True) -> None:
    """Replaces the listed layers of a dense model by empty compressed ones.

    A base model (BertModel) loads what a task model (bert.*) saved and the other way round, as
    with every checkpoint of transformers. Layers that the model lacks are an error if `strict`,
    else left to the loader's own report. Raises CheckpointError where a layer differs.
    """
    entries = list(entries)
    places = {entry.name: _locate(model, entry.name) for entry in entries}
    if entries and not any(places.values()):
        raise CheckpointError(
            f"config.json compresses {entries[0].name} and others; a {type(model).__name__} has "
            "none of them"
        )
    for entry in entries:
        name = places[entry.name]
        if name is None:
            if strict:
                raise CheckpointError(f"config.json compresses {entry.name}, the model has no such")
            continue
        module = model.get_submodule(name)
        kind = kind_of(module)
        shape = tuple(dense_weight(module).shape) if kind else None
        if kind != entry.kind or shape != entry.shape:
            found = f"{kind} {shape}" if kind else type(module).__name__
            raise CheckpointError(
                f"config.json: {entry.name} is listed as {entry.kind} {entry.shape}, "
                f"the model has {found}"
            )
        aliases = tuple(a for a in (_locate(model, alias) for alias in entry.aliases) if a)
        ref = LayerRef(name, entry.kind, entry.shape, aliases, f"{name}.weight")
        replace(model, ref, entry.empty_codec())


def _locate(model: nn.Module, name: str) -> str | None:
    """The path in `model` of a layer saved as `name`, with or without the base model's prefix."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    for path in (name, name.removeprefix(prefix), prefix + name):
        try:
            model.get_submodule(path)
            return path
        except AttributeError:
            continue
    return None
