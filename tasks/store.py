"""The layer store: finished layers by key, shared by all runs. What is damaged does not count."""

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.errors import CheckpointError, ShrinkflowError
from tasks.shared import SharedFolder

logger = logging.getLogger(__name__)
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class StoredFile:
    """A file of the store. `used`: seconds since 1970 of its last use; no key: a leftover of a
    writer that was killed."""

    path: Path
    key: str | None
    bytes: int
    used: float


@dataclass(frozen=True)
class LayerStore:
    """A folder of layer files named <first two digits>/<key>.safetensors.

    Behind it there may be a `shared` one: what it has is found, what is made here is put there.
    The time of last access of a file is the time of last use; the store sets it itself.
    """

    root: Path
    shared: SharedFolder | None = None

    def path(self, key: str) -> Path:
        return self.root / _name(key)

    def find(self, key: str) -> dict[str, Any] | None:
        """The report of a finished layer, or None where it is missing or its bytes are not whole.

        A damaged file is removed, so that the layer is computed again. What only the shared store
        has is here afterwards. A store that cannot be written is only read.
        """
        report = self._read(key)
        if report is None and self.shared and self.shared.get(_shared(key), self.path(key)):
            report = self._read(key)
            if report is None:
                self.shared.remove(_shared(key))
        return report

    def share(self, key: str) -> None:
        """Puts a layer file that was made here into the shared store, if there is one."""
        if self.shared is not None:
            self.shared.put(self.path(key), _shared(key))

    def require_writable(self, keys: Iterable[str]) -> None:
        """Raises ShrinkflowError where a layer could not be kept, before work goes into it."""
        for folder in {self.path(key).parent for key in keys}:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                reason = "" if os.access(folder, os.W_OK | os.X_OK) else "it is read-only"
            except OSError as error:
                reason = error.strerror or str(error)
            if reason:
                raise ShrinkflowError(
                    f"the layer store {self.root} cannot be written ({reason}): make it writable; "
                    "layers that are in it are used as they are, but a new one has to go there"
                )

    def files(self) -> Iterator[StoredFile]:
        """All layers, and the temporary files that killed writers have left."""
        for path in sorted(self.root.glob("??/*")):
            with suppress(FileNotFoundError):  # a writer has just finished
                stat = path.stat()
                used = max(stat.st_atime, stat.st_mtime)
                if path.suffix == SUFFIX:
                    yield StoredFile(path, path.stem, stat.st_size, used)
                elif path.suffix == ".part":
                    yield StoredFile(path, None, stat.st_size, stat.st_mtime)

    def method(self, file: StoredFile) -> str:
        """The method of a layer, from its header; `damaged` where there is none."""
        from safetensors import SafetensorError, safe_open

        from compress.layer_file import KEY

        try:
            with safe_open(file.path, framework="np") as opened:
                return str(json.loads((opened.metadata() or {})[KEY])["method"])
        except (OSError, SafetensorError, ValueError, KeyError):
            return "damaged"

    def _read(self, key: str) -> dict[str, Any] | None:
        from compress.layer_file import read_layer

        path = self.path(key)
        if not path.is_file():
            return None
        try:
            _, metadata = read_layer(path)
            report = metadata["report"]
        except (CheckpointError, KeyError) as error:
            logger.warning("%s is damaged and will be made again: %s", path, error)
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        used(path)
        return report


def used(path: Path) -> None:
    """Sets the time of last use of a file of the store, where that can be written."""
    with suppress(OSError):
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def _name(key: str) -> str:
    return f"{key[:2]}/{key}{SUFFIX}"


def _shared(key: str) -> str:
    return f"layers/{_name(key)}"
