"""What Prefect shows of a run: a table of layers, the result, links to report and MLflow run.

Decoration: where it cannot be written the log says so, and the run goes on.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from tasks.formats import cell, size, times
from tasks.outputs import read_json
from tasks.workspace import Workspace

COLUMNS = (
    "name", "group", "method", "shape", "block_size", "codebook_size", "bits_per_weight", "bytes",
    "relative_distortion",
)  # fmt: skip
logger = logging.getLogger(__name__)


def key(workspace: Workspace, what: str) -> str:
    """Of an artifact, whose versions Prefect lists under it: `my-project-layers`."""
    name = re.sub(r"[^a-z0-9]+", "-", workspace.root.name.lower()).strip("-")
    return f"{name}-{what}" if name else what


def show_layers(workspace: Workspace, rows: Sequence[Mapping[str, Any]]) -> None:
    """A row a layer, from the rows of layers.csv."""
    table = [{column: _short(row.get(column)) for column in COLUMNS} for row in rows]
    _write(
        create_table_artifact,
        table=table,
        key=key(workspace, "layers"),
        description=f"{len(table)} compressed layers",
    )


def show_result(workspace: Workspace, found: Mapping[str, Any], run: str | None) -> None:
    """What was registered and why, the report, and the page of the MLflow run where there is one.

    `found` is what the registry decided, `run` the address of that page.
    """
    report = workspace.report.as_uri()
    text = _result(read_json(workspace.metrics("evaluate")), found)
    links = [f"[report]({report})", *([f"[MLflow run]({run})"] if run else [])]
    _write(
        create_markdown_artifact,
        markdown=f"{text}\n\n{' · '.join(links)}",
        key=key(workspace, "result"),
        description=f"{found['name']} version {found['version']}, {found['alias']}",
    )
    _write(create_link_artifact, link=report, link_text="report", key=key(workspace, "report"))
    if run:
        _write(create_link_artifact, link=run, link_text="run", key=key(workspace, "mlflow"))


def _result(scores: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    before, after = scores["bytes_uncompressed"], scores["bytes"]
    lines = [
        f"## {found['name']} version {found['version']}: {found['alias']}",
        found["reason"],
        "",
        "| | uncompressed | compressed |",
        "|---|---:|---:|",
        f"| {scores['metric']} | {scores['score_uncompressed']:.2f} | {scores['score']:.2f} |",
        f"| size on disk | {size(before)} | {size(after)}, {times(scores['ratio'])} smaller |",
    ]
    return "\n".join(lines)


def _short(value: Any) -> Any:
    return cell(value, ".4g") if isinstance(value, float) else value


def _write(create: Callable[..., Any], **given: Any) -> None:
    try:
        create(**given)
    except Exception as error:
        logger.warning("Prefect did not take the artifact %s: %s", given["key"], error)
