"""The layer store: finished layers by key, shared by all runs. What is damaged does not count."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.errors import CheckpointError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LayerStore:
    """A folder of layer files named <first two digits>/<key>.safetensors."""

    root: Path

    def path(self, key: str) -> Path:
        return self.root / key[:2] / f"{key}.safetensors"

    def find(self, key: str) -> dict[str, Any] | None:
        """The report of a finished layer, or None where it is missing or its bytes are not whole.

        A damaged file is removed, so that the layer is computed again.
        """
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
