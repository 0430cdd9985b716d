"""Checkpoints of a training: one counts only once its marker is there, with the digest of every
file, so that one that was cut off in the middle, or damaged since, is never read."""

import json
import logging
import shutil
from pathlib import Path

from compress.atomic import new_file
from compress.verify import file_digest

logger = logging.getLogger(__name__)
MARKER = "complete"


def last_checkpoint(work_dir: Path) -> str | None:
    """The newest checkpoint that is whole; what is not is removed."""
    folders = sorted(work_dir.glob("checkpoint-*"), key=lambda f: int(f.name.rsplit("-", 1)[1]))
    for folder in reversed(folders):
        if is_whole(folder):
            return str(folder)
        shutil.rmtree(folder)
    return None


def write_marker(folder: Path) -> None:
    """Says that a checkpoint is whole, and which bytes it is made of."""
    with new_file(folder / MARKER) as temporary:
        temporary.write_text(json.dumps(_digests(folder)), encoding="utf-8")


def is_whole(folder: Path) -> bool:
    marker = folder / MARKER
    if not marker.is_file():
        return False
    try:
        whole = json.loads(marker.read_text(encoding="utf-8")) == _digests(folder)
    except (OSError, ValueError):
        whole = False
    if not whole:
        logger.warning("%s is damaged: training goes on from the one before it", folder)
    return whole


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(f for f in folder.iterdir() if f.is_file() and f.name != MARKER)
    return {file.name: file_digest(file) for file in files}
