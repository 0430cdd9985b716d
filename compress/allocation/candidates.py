"""The settings that a layer may get under a size budget: every method offers its own."""

from collections.abc import Sequence
from typing import Any

from compress.codecs.registry import codec_class, methods
from compress.config import QuantizeConfig


def layer_candidates(
    shape: Sequence[int], nominal: Any, quantize: QuantizeConfig, group: str
) -> list[Any]:
    """Settings for one layer of `group`, each of which `fit` accepts; `nominal`, those of
    params.yaml, come first.

    A group that names its method keeps to it, as one of layers that belong together; else all
    methods take part. Empty only where the nominal settings have a problem and no method offers
    others.
    """
    only = next(entry.method for entry in quantize.groups if entry.name == group)
    if codec_class(nominal.method).has_ties():
        only = nominal.method  # its layers would lose their partners
    found = [nominal]
    for name, method in methods().items():
        if only in (None, name):
            found += method.candidates(shape, nominal)
    if quantize.recovery(group).reassign_steps:
        found = [s for s in found if not s.keeps_codes]
    fits = [s for s in found if not codec_class(s.method).problems(shape, s)]
    unique = {settings.model_dump_json(): settings for settings in fits}
    return list(unique.values())
