"""What `shrinkflow cache` prints."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from flows.console import note, output
from tasks.formats import size
from tasks.pruning import Survey
from tasks.store import StoredFile

DAY = 86400
AGES = {"today": DAY, "this week": 7 * DAY, "this month": 30 * DAY, "longer ago": float("inf")}


def show_store(survey: Survey) -> None:
    """The layers by method and last use, then by who needs them."""
    if not survey.files:
        note(f"{survey.root}: no layers")
        return
    output.print(Text(str(survey.root), style="bold"), soft_wrap=True)
    table = _table("method", "last used", "layers", "size")
    cells: dict[tuple[str, str], list[StoredFile]] = {}
    for file, method in survey.layers:
        age = next(name for name, limit in AGES.items() if survey.now - file.used < limit)
        cells.setdefault((method, age), []).append(file)
    order = list(AGES)
    for method, age in sorted(cells, key=lambda cell: (cell[0], order.index(cell[1]))):
        table.add_row(method, age, *_sums(cells[method, age]))
    table.add_section()
    table.add_row("all", "", *_sums([file for file, _ in survey.layers]))
    if survey.leftovers:
        table.add_row("left by killed writers", "", *_sums(survey.leftovers))
    output.print(table)
    if survey.needs is None:
        note(f"who needs them is not known: {survey.problem}")
        return
    needed = _table("needed by", "layers", "size")
    users: dict[str, list[StoredFile]] = {}
    for file, _ in survey.layers:
        for user in survey.needs.of(file) or {"nobody"}:
            users.setdefault(user, []).append(file)
    for user in sorted(users, key=lambda user: (user == "nobody", user)):
        needed.add_row(user, *_sums(users[user]))
    output.print(needed)


def show_pruned(
    removed: Sequence[StoredFile], left: int, max_bytes: int | None, *, dry_run: bool
) -> None:
    """What was removed, or would be, and what is left."""
    verb = "would be removed" if dry_run else "removed"
    total = sum(file.bytes for file in removed)
    output.print(f"{len(removed)} files {verb}, {size(total)}; {size(left)} left")
    if max_bytes is not None and left > max_bytes:
        note(f"the rest is needed: that is more than {size(max_bytes)}")


def _sums(files: Sequence[StoredFile]) -> tuple[str, str]:
    return str(len(files)), size(sum(file.bytes for file in files))


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in ("layers", "size") else "left")
    return table
