"""`shrinkflow cache`: what the layer store of the project holds, and what of it may go."""

import re
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Show the layer store of this project, or remove from it what nobody needs.",
    invoke_without_command=True,
)
AGES = {"h": 3600, "d": 86400, "w": 7 * 86400}
SIZES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def _age(text: str) -> float:
    """`30d` -> seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([hdw])", text.strip().lower())
    if found is None:
        raise typer.BadParameter(f"`{text}` is no age; write 12h, 30d or 8w")
    return float(found[1]) * AGES[found[2]]


def _size(text: str) -> int:
    """`2GB` -> bytes, decimal as disks count."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B)", text.strip().upper())
    if found is None:
        raise typer.BadParameter(f"`{text}` is no size; write 500MB or 2GB")
    return int(float(found[1]) * SIZES[found[2]])


MaxAge = Annotated[
    float | None,
    typer.Option(
        "--older-than", parser=_age, metavar="30d", help="Last used longer ago (h, d, w)."
    ),
]
MaxSize = Annotated[
    int | None,
    typer.Option("--max-size", parser=_size, metavar="2GB", help="The least recently used go."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")]


@app.callback()
def show(context: typer.Context) -> None:
    """Show the layers by method and age, and who needs them."""
    if context.invoked_subcommand is not None:
        return
    from flows.session import failures

    with failures():
        from flows.cache_tables import show_store
        from tasks.pruning import survey

        show_store(survey(_project()))


@app.command()
def prune(older_than: MaxAge = None, max_size: MaxSize = None, dry_run: DryRun = False) -> None:
    """Remove layers that nobody needs: no outputs here, no registered version, no killed run."""
    from flows.session import failures

    with failures():
        from compress.errors import InputError
        from flows.cache_tables import show_pruned
        from tasks.pruning import prune as remove

        if older_than is None and max_size is None:
            raise InputError("say what may go: --older-than 30d, --max-size 2GB, or both")
        removed, left = remove(_project(), max_age=older_than, max_bytes=max_size, dry_run=dry_run)
        show_pruned(removed, left, max_size, dry_run=dry_run)


def _project() -> Path:
    from tasks.workspace import Workspace

    return Workspace(Path.cwd()).project
