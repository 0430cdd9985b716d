"""What a command ends with: scores, sizes, where to look next."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from compress.config import Params
from compress.redaction import without_password
from flows.console import output, short
from tasks.formats import duration, size
from tasks.summary import Summary
from tasks.tracking_uri import embedded_file, given_uri
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from tasks.streaming import StreamSummary
    from tasks.sweep import Outcome


def show_summary(summary: Summary, done: Sequence[str], seconds: float) -> None:
    """The table at the end of a run that took `seconds` and had the stages `done` to do."""
    s = summary
    table = Table(title=f"{s.name} version {s.version}", title_justify="left")
    table.add_column("")
    for name in ("uncompressed", "compressed"):
        table.add_column(name, justify="right")
    table.add_row(s.metric, f"{s.score_uncompressed:.2f}", f"{s.score:.2f}")
    table.add_row("size on disk", size(s.bytes_uncompressed), size(s.bytes))
    table.add_row("ratio", "1", f"{s.bytes_uncompressed / s.bytes:.1f}x")
    table.add_row("compressed layers", "-", str(s.layers))
    table.add_row("bits per weight in them", "32", f"{s.bits_per_weight:.2f}")
    if s.empty_initial is not None:
        table.add_row("empty clusters at first / left", "-", f"{s.empty_initial} / {s.dead}")
    output.print(table)
    output.print(Text(_time_spent(s.seconds, done, seconds), style="dim"))
    style = "bold green" if s.alias == "champion" else "yellow"
    output.print(Text.assemble((s.alias, style), f": {s.reason}"))


def _time_spent(stages: dict[str, float], done: Sequence[str], seconds: float) -> str:
    if not done:
        return f"everything was up to date ({duration(seconds)})"
    spent = [f"{name} {duration(stages[name])}" for name in done]
    around = seconds - sum(stages[name] for name in done)
    return f"{duration(seconds)}: {', '.join(spent)}, all around it {duration(max(0.0, around))}"


def show_next_steps(workspace: Workspace, params: Params) -> None:
    """Where to look, as lines that can be copied."""
    uri = given_uri(params) or f"sqlite:///{short(embedded_file(workspace))}"
    store = uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {uri}"
    model, auto = short(workspace.compressed), params.data.kind.model
    rows = [
        ("report", short(workspace.report)),
        ("runs and versions", without_password(store)),
        ("flow runs", f"PREFECT_HOME={short(workspace.prefect)} prefect server start"),
        ("model folder", model),
        ("load it", f"import compress; from transformers import {auto}"),
        ("", f'model = {auto}.from_pretrained("{model}")'),
    ]
    grid = Table.grid(padding=(0, 2))
    for name, text in rows:
        grid.add_row(Text(name, style="dim"), Text(text, overflow="fold"))
    output.print(grid)


def show_sweep(outcomes: "Sequence[Outcome]", page: Path) -> None:
    """A row for each budget, and where the picture is."""
    table = Table()
    for name in ("budget", "size on disk", "smaller", outcomes[0].metric, "drop"):
        table.add_column(name, justify="right")
    for o in outcomes:
        ratio = o.bytes_uncompressed / o.bytes
        table.add_row(
            f"{o.ratio:g}x", size(o.bytes), f"{ratio:.1f}x", f"{o.score:.2f}", f"{o.drop:.2f}"
        )
    output.print(table)
    output.print(Text.assemble(("picture  ", "dim"), str(page)), soft_wrap=True)


def show_scores(folder: Path, facts: dict[str, Any]) -> None:
    """The result of `shrinkflow evaluate`."""
    table = Table(show_header=False)
    table.add_row("model", str(folder))
    table.add_row(facts["metric"], f"{facts['score']:.2f}")
    table.add_row("held-out rows", f"{facts['rows']:,}")
    table.add_row("size on disk", size(facts["bytes"]))
    output.print(table)


def show_stream(folder: Path, done: "StreamSummary", seconds: float) -> None:
    """The result of `shrinkflow stream`."""
    table = Table(show_header=False)
    found = f", {done.found} of them found finished" if done.found else ""
    for name, text in (
        ("model", str(folder)),
        ("compressed layers", f"{done.layers}{found}"),
        ("other tensors", str(done.others)),
        ("size of the source", size(done.bytes_before)),
        ("size on disk", size(done.bytes_after)),
        ("ratio", f"{done.bytes_before / done.bytes_after:.1f}x"),
        ("relative distortion", f"{done.relative_distortion:.4f}"),
        ("largest tensor", size(done.largest)),
        ("peak memory", size(done.peak_memory)),
        ("time", duration(seconds)),
    ):
        table.add_row(name, text)
    output.print(table)
