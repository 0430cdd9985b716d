"""Files and folders that appear whole or not at all: a temporary name beside, then a rename."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compress.errors import InputError


@contextmanager
def new_file(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path; when the block ends well, the file takes the place of `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Its own for every writer, also on other machines that share the folder.
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:16]}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path | str, holds: str = "config.json") -> Iterator[Path]:
    """Yields an empty temporary folder; when the block ends well, it takes the place of `path`.

    An earlier folder at `path` is replaced as a whole, so it must be one of ours: empty or with a
    file named `holds`. Raises InputError where it is something else.
    """
    path = Path(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / holds).exists()):
        raise InputError(f"{path}: exists and holds no {holds}; give another folder")
    part, old = (path.with_name(f".{path.name}.{end}") for end in ("part", "old"))
    if old.exists() and not path.exists():  # killed between the two renames
        os.replace(old, path)
    for left_over in (part, old):  # of a process that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if path.exists():
            os.replace(path, old)
        os.replace(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
