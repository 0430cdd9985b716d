"""Tables of layers: of a plan, of a compressed model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from flows.console import note, output
from tasks.formats import duration, size

if TYPE_CHECKING:
    from compress.plan import Plan
    from tasks.budget_plan import BudgetPlan


def show_plan(plan: "Plan") -> None:
    """Every layer, then the sums: bytes, ratio, memory, disk, time."""
    table = _layer_table("layer", "shape", "bits/weight", "bytes")
    heading = None
    for row in plan.layers:
        title = f"{row.group}: {row.summary}"
        if title != heading:
            table.add_section()
            table.add_row(Text(title, style="bold"))
            heading = title
        table.add_row(row.name, _shape(row.shape), f"{row.bits_per_weight:.2f}", f"{row.bytes:,}")
    _add_sums(table, plan.rest_bytes, plan.total_bytes, "")
    output.print(table)
    greedy = max(plan.memory, key=lambda stage: plan.memory[stage])
    times = [f"{name} {duration(s)}" for name, s in plan.seconds.items() if s is not None]
    grid = Table.grid(padding=(0, 2))
    for name, text in (
        (
            "size",
            f"{size(plan.dense_bytes)} -> {size(plan.total_bytes)} at most, "
            f"{plan.ratio:.1f}x smaller",
        ),
        ("compressed layers", f"{len(plan.layers)}, {plan.bits_per_weight:.2f} bits per weight"),
        ("peak memory, about", f"{size(plan.peak_memory)} ({greedy})"),
        ("disk for a while", size(plan.disk)),
        ("time, roughly", f"{duration(plan.total_seconds)} ({', '.join(times)})"),
    ):
        grid.add_row(Text(name, style="dim"), text)
    output.print(grid)
    for text in plan.notes:
        note(text)


def show_budget(bought: "BudgetPlan") -> None:
    """What `show_plan` does not say: the budget, how good the choice is, where the picture is."""
    found = bought.allocation
    grid = Table.grid(padding=(0, 2))
    for name, text in (
        ("budget", f"{found.limit:,} bytes; the file will have at most {found.bytes:,}"),
        ("optimality", f"at most {100 * found.gap:.2f} % of the predicted damage is avoidable"),
        ("damage weighed by", bought.weighed),
        ("picture", str(bought.page)),
    ):
        grid.add_row(Text(name, style="dim"), Text(text, overflow="fold"))
    output.print(grid)


def show_model(folder: Path, facts: dict[str, Any]) -> None:
    """The result of `shrinkflow inspect`."""
    table = _layer_table("layer", "shape", "bits/weight", "bytes")
    heading = None
    for row in facts["layers"]:
        title = f"{row['kind']}: {row['summary']}"
        if title != heading:
            table.add_section()
            table.add_row(Text(title, style="bold"))
            heading = title
        bits = f"{row['bits_per_weight']:.2f}"
        table.add_row(row["name"], _shape(row["shape"]), bits, f"{row['bytes']:,}")
    rest = facts["bytes"] - sum(row["bytes"] for row in facts["layers"])
    _add_sums(table, rest, facts["bytes"], f", {facts['rest']}")
    output.print(Text(str(folder), style="bold"))
    output.print(table)


def _layer_table(first: str, *numbers: str) -> Table:
    """Fits 80 columns: names of layers are long, and never cut."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _add_sums(table: Table, rest: int, total: int, precision: str) -> None:
    table.add_section()
    table.add_row(f"everything else{precision}", "", "", f"{rest:,}")
    table.add_row("file", "", "", Text(f"{total:,}", style="bold"))


def _shape(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape)
