"""Which layers of a model are compressed, in which group, with which settings.

Names are dotted module paths. A tied weight is one layer: its first path is its name, the other
paths are its aliases.
"""

import difflib
from collections import defaultdict
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn

from compress.codecs.registry import codec_class
from compress.config import CodecConfig, GroupConfig, QuantizeConfig
from compress.errors import InputError
from compress.layers import dense_weight, is_transposed, kind_of
from compress.stack import copies


@dataclass(frozen=True)
class LayerRef:
    """One weight that can be compressed.

    Example: LayerRef("bert.embeddings.word_embeddings", "embedding", (30522, 384),
    aliases=("cls.predictions.decoder",), tensor="bert.embeddings.word_embeddings.weight")

    shape: (out, ...) of a weight that codecs see; `transposed`: the tensor is kept as (in, out).
    depthwise: a convolution of which each channel has a kernel of its own.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    aliases: tuple[str, ...]
    tensor: str
    depthwise: bool = False
    transposed: bool = False

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Of the tensor in a checkpoint."""
        return self.shape[::-1] if self.transposed else self.shape

    @property
    def names(self) -> tuple[str, ...]:
        """Every path of the weight, its own first."""
        return (self.name, *self.aliases)

    @property
    def has_moments(self) -> bool:
        """Whether one metric fits all that the weight is for: not an embedding that is the head."""
        return self.kind != "embedding" or not self.aliases


@dataclass(frozen=True)
class SelectedLayer:
    """A layer with the group and the settings it is compressed with."""

    group: str
    ref: LayerRef
    settings: CodecConfig

    def problems(self) -> list[str]:
        """Why it cannot be compressed so, each with its remedy."""
        return codec_class(self.settings.method).problems(self.ref.shape, self.settings)


@dataclass(frozen=True)
class Selection:
    """Layers by group, in the order of the params; `problems` forbid the run, `notes` do not."""

    layers: tuple[SelectedLayer, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    def group(self, name: str) -> tuple[SelectedLayer, ...]:
        """The layers of one group."""
        return tuple(layer for layer in self.layers if layer.group == name)


def compressible(model: nn.Module) -> list[LayerRef]:
    """Every Linear, Conv1D, Embedding and Conv2d whose weight can be replaced; works on the meta
    device.

    A weight that is tied to something else than these layers is left out: replacing one side would
    untie it.
    """
    owners: dict[int, set[str]] = defaultdict(set)  # parameter -> modules that hold it
    for path, parameter in model.named_parameters(remove_duplicate=False):
        owners[id(parameter)].add(path.rpartition(".")[0])
    places: dict[int, list[tuple[str, nn.Module]]] = defaultdict(list)
    for path, module in model.named_modules(remove_duplicate=False):
        if path and kind_of(module):
            places[id(module.weight)].append((path, module))
    refs = []
    for key, found in places.items():
        names = [path for path, _ in found]
        if owners[key] == set(names):
            name, module = found[0]
            shape = tuple(dense_weight(module).shape)
            aliases, tensor = tuple(names[1:]), f"{name}.weight"
            kind, alone, turned = kind_of(module) or "", _depthwise(module), is_transposed(module)
            refs.append(LayerRef(name, kind, shape, aliases, tensor, alone, turned))
    return refs


def weight_of(model: nn.Module, ref: LayerRef) -> Tensor:
    """The weight of a layer of `model` as codecs see it, of the ref's shape; not a copy."""
    return dense_weight(model.get_submodule(ref.name))


def uses(model: nn.Module, ref: LayerRef) -> list[str]:
    """The modules that use the weight of `ref` as the first of them does: its like in layers that
    share their weights, but not a linear head that is tied to an embedding."""
    modules = {name: model.get_submodule(name) for name in ref.names}
    first = {id(module): name for name, module in reversed(modules.items())}  # each module once
    return [
        name
        for name, module in modules.items()
        if first[id(module)] == name and kind_of(module) == ref.kind
    ]


def matches(pattern: str, name: str) -> bool:
    """Whether a dotted name fits a pattern: `*` is any text in one part, `**` any number of parts.

    `matches("**.layer.*.output.dense", "bert.encoder.layer.0.output.dense")` is true.
    """
    parts = name.split(".")
    ends = {0}  # how many parts what was read of the pattern can stand for
    for piece in pattern.split("."):
        if piece == "**":
            ends = set(range(min(ends), len(parts) + 1))
        else:
            ends = {i + 1 for i in ends if i < len(parts) and fnmatchcase(parts[i], piece)}
        if not ends:
            return False
    return len(parts) in ends


def select(model: nn.Module, quantize: QuantizeConfig) -> Selection:
    """Applies the groups' patterns to the model; all problems are listed, none is raised."""
    refs = compressible(model)
    layers: list[SelectedLayer] = []
    problems: list[str] = []
    taken: dict[str, str] = {}
    for group in quantize.groups:
        found = _match_group(group, refs, model, problems)
        for ref in found:
            if ref.name in taken:
                problems.append(_twice(ref, taken[ref.name], group.name))
                continue
            taken[ref.name] = group.name
            layers.append(SelectedLayer(group.name, ref, quantize.settings(group)))
    for layer in layers if quantize.budget is None else ():  # else other settings may do
        problems += [f"{layer.ref.name} (group {layer.group}): {p}" for p in layer.problems()]
    apart = tuple(f"{name}." for name in copies(model))  # whoever shares layers knows of them
    problems += _loose_ends(layers)
    notes = [
        f"{', '.join(others)} shares its weight with {layer.ref.name}: "
        "compressed together, counted once"
        for layer in layers
        if (others := [n for n in layer.ref.aliases if not apart or not n.startswith(apart)])
    ]
    return Selection(tuple(layers), tuple(problems), tuple(notes))


def _match_group(
    group: GroupConfig, refs: list[LayerRef], model: nn.Module, problems: list[str]
) -> list[LayerRef]:
    """The refs that any pattern of the group fits, in the order of the model. Depthwise
    convolutions, few weights of which each does a lot, have to be named without wildcards."""
    found: set[str] = set()
    for pattern in group.layers:
        fits = [ref for ref in refs if any(matches(pattern, name) for name in ref.names)]
        fits = [ref for ref in fits if "*" not in pattern or not ref.depthwise]
        found.update(ref.name for ref in fits)
        if not fits:
            problems.append(f"group {group.name}: `{pattern}` {_why_nothing(pattern, refs, model)}")
    return [ref for ref in refs if ref.name in found]


def _depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels


def _loose_ends(layers: list[SelectedLayer]) -> list[str]:
    """Layers that belong together with others that are not there."""
    problems = []
    for group in dict.fromkeys(layer.group for layer in layers):
        own = [layer for layer in layers if layer.group == group]
        codec = codec_class(own[0].settings.method)
        try:
            codec.ties({x.ref.name: x.ref.shape for x in own})
        except InputError as error:
            problems.append(f"group {group}: {error}")
    return problems


def _why_nothing(pattern: str, refs: list[LayerRef], model: nn.Module) -> str:
    other = {type(m).__name__ for name, m in model.named_modules() if matches(pattern, name)}
    if any(ref.depthwise and matches(pattern, ref.name) for ref in refs):
        return (
            "matches only depthwise convolutions, which are left alone: they hold few weights; "
            "to compress one give its name without `*`"
        )
    if other:
        return f"matches only what cannot be compressed ({', '.join(sorted(other))})"
    names = [name for ref in refs for name in ref.names]
    bare = ".".join(part for part in pattern.split(".") if part.strip("*"))
    close = difflib.get_close_matches(bare, names, n=1, cutoff=0.0)
    return f"matches no layer of the model{f'; the nearest name is {close[0]}' if close else ''}"


def _twice(ref: LayerRef, first: str, second: str) -> str:
    tied = f" (tied with {', '.join(ref.aliases)})" if ref.aliases else ""
    return f"{ref.name}{tied} is matched by two groups, {first} and {second}; keep it in one"
