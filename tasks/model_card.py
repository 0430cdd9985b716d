"""The README.md of a compressed model: what it is, how well it does, how to load it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from compress.config import Params

TEMPLATES = Path(__file__).parent / "templates"


def model_card(
    params: Params,
    data: Mapping[str, Any],
    metrics: Mapping[str, Any],
    groups: Sequence[Mapping[str, Any]],
) -> str:
    """Markdown with the metadata that the Hugging Face hub reads.

    `data` is what data.json says, `metrics` the totals of the layers with the uncompressed score
    and bytes, `groups` the rows of groups.csv, the last of which is the finished model.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=False,  # Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("model_card.md.j2").render(
        params=params, data=data, metrics=metrics, groups=groups, final=groups[-1]
    )
