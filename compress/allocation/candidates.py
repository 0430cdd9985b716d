"""The settings that a layer may get under a size budget: every method offers its own."""

from typing import Any

from compress.codecs.base import codec_class, methods
from compress.config import QuantizeConfig
from compress.selection import SelectedLayer


def layer_candidates(layer: SelectedLayer, quantize: QuantizeConfig) -> list[Any]:
    """Settings for one layer, each of which `fit` accepts; those of params.yaml come first.

    A group that names its method keeps to it; else all methods take part. Empty only where the
    nominal settings have a problem and no method offers others.
    """
    only = next(group.method for group in quantize.groups if group.name == layer.group)
    found = [layer.settings]
    for name, method in methods().items():
        if only in (None, name):
            found += method.candidates(layer.ref.shape, layer.settings)
    fits = [
        settings
        for settings in found
        if not codec_class(settings.method).problems(layer.ref.shape, settings)
    ]
    unique = {settings.model_dump_json(): settings for settings in fits}
    return list(unique.values())
