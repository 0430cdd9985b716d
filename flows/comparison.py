"""What `shrinkflow compare` shows on the terminal; the page has all of it."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from flows.console import output
from tasks.comparison import Comparison, Row

SHOWN_LAYERS = 8


def show_comparison(comparison: Comparison, page: Path) -> None:
    """Facts, the parameters that differ, the layers that differ most, and where the page is."""
    first, second = comparison.first, comparison.second
    _show(comparison, first.name, comparison.facts(), "difference")
    for version in (first, second):
        if reason := version.tags.get("reason"):
            output.print(Text(f"version {version.judged.version}: {reason}", style="dim"))
    _show(comparison, "parameters that differ", comparison.parameters())
    _show(comparison, "relative distortion", comparison.layer_rows(SHOWN_LAYERS), "difference")
    output.print(Text.assemble(("page  ", "dim"), str(page)), soft_wrap=True)


def _show(comparison: Comparison, title: str, rows: Sequence[Row], *more: str) -> None:
    """A table with a column for either version and `more`."""
    if not rows:
        output.print(Text(f"{title}: none", style="dim"))
        return
    table = Table(title=title, title_justify="left")
    table.add_column("", overflow="fold")
    for name in (comparison.first.title, comparison.second.title, *more):
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(text) for text in row[: 3 + len(more)]))
    output.print(table)
