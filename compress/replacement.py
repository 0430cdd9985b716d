"""Putting compressed layers into a model, in place of a weight's every occurrence."""

from torch import nn

from compress.codecs.base import Codec
from compress.errors import InputError
from compress.layers import compressed
from compress.selection import LayerRef


def replace(model: nn.Module, ref: LayerRef, codec: Codec) -> None:
    """Puts compressed layers around `codec` at the layer's name and at every alias.

    What is tied stays tied: the first name owns the codec's tensors, the aliases only use them.
    Raises InputError where the model has no such layer or the shapes differ.
    """
    old = {name: _module(model, name) for name in ref.names}
    made: dict[int, nn.Module] = {}  # a module may itself be at several places
    for dense in old.values():
        if id(dense) not in made:
            made[id(dense)] = compressed(dense, codec, tied=bool(made))
    _forget_ties(model, {f"{name}.weight" for name in ref.names})
    for name, dense in old.items():
        model.set_submodule(name, made[id(dense)])


def _module(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise InputError(f"the model has no layer {name}") from None


def _forget_ties(model: nn.Module, tensors: set[str]) -> None:
    """Takes weights that are about to go out of transformers' own lists of what it must tie."""
    for prefix, module in model.named_modules():
        if not hasattr(module, "get_expanded_tied_weights_keys"):
            continue
        path = f"{prefix}." if prefix else ""
        expanded = module.get_expanded_tied_weights_keys(all_submodels=False)  # patterns resolved
        lists = {
            "_tied_weights_keys": expanded,
            "all_tied_weights_keys": getattr(module, "all_tied_weights_keys", {}),
        }
        for attribute, ties in lists.items():
            kept = {a: b for a, b in ties.items() if not {path + a, path + b} & tensors}
            if len(kept) < len(ties):
                setattr(module, attribute, kept)
