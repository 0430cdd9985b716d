"""What the layer store of a project holds, and what of it may go.

Layers that are needed (tasks.layer_needs says by whom) are never removed.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from compress.errors import ShrinkflowError
from tasks.layer_needs import Needs, needs, workspaces
from tasks.lock import workspace_lock
from tasks.store import LayerStore, StoredFile
from tasks.workspace import Workspace

LEFTOVER_SECONDS = 24 * 3600  # writing a layer takes far less


@dataclass(frozen=True)
class Survey:
    """The store of a project: its layers with their methods, and who needs them; `needs` is None
    where that is not known, `problem` says why."""

    root: Path
    now: float
    files: list[StoredFile]
    layers: list[tuple[StoredFile, str]]
    needs: Needs | None
    problem: str = ""

    @property
    def leftovers(self) -> list[StoredFile]:
        """Temporary files of writers that were killed, and of those that write right now."""
        return [file for file in self.files if file.key is None]


def survey(project: Path) -> Survey:
    """Looks at the store and asks the registries; changes nothing."""
    store = LayerStore(Workspace(project).layers)
    files = list(store.files())
    layers = [(file, store.method(file)) for file in files if file.key is not None]
    known, problem = None, ""
    try:
        known = needs(Workspace(project), workspaces(project)) if layers else Needs({})
    except ShrinkflowError as error:
        problem = str(error)
    return Survey(store.root, time.time(), files, layers, known, problem)


def choose(
    files: Sequence[StoredFile],
    needed: Needs,
    *,
    now: float,
    max_age: float | None = None,
    max_bytes: int | None = None,
) -> list[StoredFile]:
    """The files to remove, least recently used first: leftovers of a day; what nobody needs and is
    older than `max_age` seconds; then more of that until the store is within `max_bytes`."""
    leftovers = [f for f in files if f.key is None and now - f.used > LEFTOVER_SECONDS]
    free = [f for f in files if f.key is not None and not needed.of(f)]
    free.sort(key=lambda f: (f.used, f.path))
    chosen = [f for f in free if max_age is not None and now - f.used > max_age]
    left = sum(f.bytes for f in files) - sum(f.bytes for f in [*leftovers, *chosen])
    for file in free[len(chosen) :]:
        if max_bytes is None or left <= max_bytes:
            break
        chosen.append(file)
        left -= file.bytes
    return leftovers + chosen


@contextmanager
def held(found: Sequence[Workspace]) -> Iterator[None]:
    """No run begins in these workspaces inside. Raises BusyError where one is going on."""
    with ExitStack() as stack:
        for workspace in found:
            stack.enter_context(workspace_lock(workspace))
        yield


def prune(
    project: Path, *, max_age: float | None, max_bytes: int | None, dry_run: bool
) -> tuple[list[StoredFile], int]:
    """Removes what `choose` names; returns it and the bytes that are left.

    Raises ShrinkflowError where a run is going on, a registry cannot be asked, or a file cannot be
    removed.
    """
    store, found = LayerStore(Workspace(project).layers), workspaces(project)
    with held(found):
        files = list(store.files())
        chosen = choose(
            files,
            needs(Workspace(project), found),
            now=time.time(),
            max_age=max_age,
            max_bytes=max_bytes,
        )
        try:
            for file in chosen if not dry_run else ():
                file.path.unlink(missing_ok=True)
        except OSError as error:
            raise ShrinkflowError(
                f"{error.filename}: {error.strerror}; it is still there"
            ) from None
    return chosen, sum(f.bytes for f in files) - sum(f.bytes for f in chosen)
