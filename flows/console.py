"""What the user sees of a run while it goes on: a line a stage, notes, what is next."""

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from compress.progress import console as terminal
from tasks.formats import duration

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

    from tasks.schedules import CronTimes

SHOWN_REASONS = 3
SHOWN_TIMES = 3
# Tables and results; everything else goes to stderr, as progress does. A file is not wrapped.
output = Console(width=None if sys.stdout.isatty() else 160)


def note(text: str) -> None:
    """Something that was done on the way and that the user should know."""
    terminal.print(Text(text, style="dim"), soft_wrap=True)


def stage_cached(name: str) -> None:
    terminal.print(Text.assemble(("✓ ", "green"), f"{name:<10}", ("up to date", "dim")))


def stage_starts(name: str, reasons: Sequence[str]) -> None:
    """`reasons` is what changed since the stage was last recorded."""
    more = len(reasons) - SHOWN_REASONS
    text = "; ".join(reasons[:SHOWN_REASONS]) + (f"; and {more} more" if more > 0 else "")
    terminal.print(Text.assemble(("→ ", "cyan"), f"{name:<10}", (text, "dim")), soft_wrap=True)


def stage_ends(name: str, seconds: float) -> None:
    terminal.print(Text.assemble(("✓ ", "green"), f"{name:<10}", (duration(seconds), "dim")))


def show_schedule(params: Path, times: "CronTimes", pages: str | None) -> None:
    """What `shrinkflow serve` will do, and where to look."""
    upcoming = ", ".join(moment(when) for when in times.next(SHOWN_TIMES))
    lines = [("serving", f"{params} at {times.cron} ({times.timezone})")]
    lines += [("next", upcoming)]
    lines += [("flow runs", pages)] if pages else []
    for name, text in lines:
        terminal.print(Text.assemble((f"{name:<12}", "dim"), text), soft_wrap=True)
    terminal.print(Text("Ctrl-C ends it", style="dim"))


def run_ends(run: "FlowRun", upcoming: Sequence[datetime]) -> None:
    """A line for a run that `shrinkflow serve` has seen end."""
    assert run.state is not None
    done = run.state.is_completed()
    mark = ("✓ ", "green") if done else ("✗ ", "red")
    name = "" if done else f"{run.state.name}: "
    text = (run.state.message or "").removeprefix("Flow run encountered an exception: ")
    spent = duration(run.total_run_time.total_seconds())
    due = run.expected_start_time
    when = moment(due.astimezone(upcoming[0].tzinfo)) if due else ""
    after = f" ({spent}); next {moment(upcoming[0])}"
    terminal.print(Text.assemble(mark, f"{when}  {name}{text}", (after, "dim")), soft_wrap=True)


def moment(when: datetime) -> str:
    """`Mon 23 Nov 02:00`."""
    return f"{when:%a %d %b %H:%M}"


def short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
