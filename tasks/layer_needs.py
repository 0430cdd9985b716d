"""Who needs which layer of the layer store: outputs, registered versions, runs that were killed."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.params_yaml import load_params
from compress.redaction import without_password
from tasks.journal import RUNNING
from tasks.store import StoredFile
from tasks.workspace import PARAMS_FILE, STATE, Workspace

SKIPPED = ("artifacts", "node_modules", "__pycache__")


@dataclass(frozen=True)
class Needs:
    """Layer key -> who needs it, in words; `resumed_since`: what was used after it is needed, too
    (seconds since 1970, by a run that was killed then)."""

    by_key: dict[str, set[str]]
    resumed_since: float | None = None

    def of(self, file: StoredFile) -> set[str]:
        """Who needs the file; nobody needs a leftover."""
        if file.key is None:
            return set()
        found = set(self.by_key.get(file.key, ()))
        if self.resumed_since is not None and file.used >= self.resumed_since:
            found.add("a run that was killed")
        return found


def workspaces(project: Path) -> list[Workspace]:
    """Every folder of the project in which a run has been: with params.yaml and a state."""
    found = []
    for folder, folders, files in os.walk(project):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in SKIPPED)
        if PARAMS_FILE in files and (Path(folder) / STATE).is_dir():
            found.append(Workspace(Path(folder)))
    return found


def needs(project: Workspace, found: Sequence[Workspace]) -> Needs:
    """What outputs and killed runs of the workspaces need, and every version that was registered.

    Raises ShrinkflowError where a registry cannot be asked or does not know its layers.
    """
    from tasks import results, tracking

    by_key: defaultdict[str, set[str]] = defaultdict(set)
    killed, known = [], {}
    for workspace in found:
        for key in results.layer_keys(workspace):
            by_key[key].add(f"outputs in {workspace.root.name}")
        running = workspace.state / RUNNING
        if running.is_file():
            killed.append(running.stat().st_mtime)
        uri = tracking.store_uri(workspace, load_params(workspace.params_file))
        known[without_password(uri)] = uri
    for registry in tracking.registries(project):
        uri = known.get(registry, registry)
        for version, keys in tracking.layers_of_versions(project, uri).items():
            for key in keys:
                by_key[key].add(version)
    return Needs(dict(by_key), min(killed, default=None))
