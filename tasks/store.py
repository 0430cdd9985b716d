"""The layer store: finished layers by key, shared by all runs. What is damaged does not count."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.errors import CheckpointError
from tasks.shared import SharedFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LayerStore:
    """A folder of layer files named <first two digits>/<key>.safetensors.

    Behind it there may be a `shared` one: what it has is found, what is made here is put there.
    """

    root: Path
    shared: SharedFolder | None = None

    def path(self, key: str) -> Path:
        return self.root / _name(key)

    def find(self, key: str) -> dict[str, Any] | None:
        """The report of a finished layer, or None where it is missing or its bytes are not whole.

        A damaged file is removed, so that the layer is computed again. What only the shared store
        has is here afterwards.
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

    def _read(self, key: str) -> dict[str, Any] | None:
        from compress.layer_file import read_layer

        path = self.path(key)
        if not path.is_file():
            return None
        try:
            _, metadata = read_layer(path)
            return metadata["report"]
        except (CheckpointError, KeyError) as error:
            logger.warning("%s is damaged and will be made again: %s", path, error)
            path.unlink(missing_ok=True)
            return None


def _name(key: str) -> str:
    return f"{key[:2]}/{key}.safetensors"


def _shared(key: str) -> str:
    return f"layers/{_name(key)}"
