"""YAML that a person wrote: comments and order are kept, a file is written whole or not at all."""

import io
import os
from pathlib import Path
from typing import Any

from compress.errors import InputError


def _yaml() -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import RoundTripRepresenter

    class Representer(RoundTripRepresenter):
        """None is written `null`: clearer than the nothing that YAML also allows."""

    Representer.add_representer(
        type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    yaml = YAML()  # round trip
    yaml.Representer = Representer
    yaml.preserve_quotes = True
    yaml.width = 100
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def load(path: Path) -> Any:
    """The file as nested mappings and lists that remember their comments; {} for an empty file.

    Raises InputError, with the line, for what DVC's parser, which is stricter than ours, refuses.
    """
    from ruamel.yaml import YAML, YAMLError

    text = path.read_text(encoding="utf-8")
    try:
        YAML(typ="safe").load(text)
        return _yaml().load(text) or {}
    except YAMLError as error:
        raise InputError(f"{path}: DVC cannot read it; are quotes missing? {error}") from None


def save(path: Path, document: Any) -> None:
    """Writes `document` to a temporary name first, so that the file is never half there."""
    text = io.StringIO()
    _yaml().dump(document, text)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text.getvalue(), encoding="utf-8")
    os.replace(temporary, path)
