"""Progress with remaining time on the terminal; silent where there is none (CI, a pipe)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True)


class Bar:
    """One line of progress: how far, an optional note such as the loss, how long still."""

    def __init__(self, progress: Progress, description: str, total: int | None):
        self._progress = progress
        self._task = progress.add_task(description, total=total, note="")

    def update(
        self, completed: int | None = None, total: int | None = None, note: str = ""
    ) -> None:
        self._progress.update(self._task, completed=completed, total=total, note=note)

    def advance(self, steps: int = 1) -> None:
        self._progress.advance(self._task, steps)


@contextmanager
def progress_bar(
    description: str, total: int | None = None, *, unit: Literal["steps", "bytes"] = "steps"
) -> Iterator[Bar]:
    """A progress line for long work: `with progress_bar("finetune", steps) as bar: ...`."""
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn() if unit == "steps" else DownloadColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield Bar(progress, description, total)
