"""A folder that several machines reach, over fsspec: a path, s3://bucket/folder, ...

Files appear in it whole or not at all: on disk by a rename, on S3 because an upload is one step.
Credentials come from the environment, as fsspec and the library below it read them.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.atomic import new_file
from compress.errors import InputError, ShrinkflowError


@dataclass(frozen=True)
class SharedFolder:
    """`url`: an absolute path or an fsspec URL. Names in it have `/` between their parts."""

    url: str

    def file(self, name: str) -> str:
        """The URL of a file in it."""
        return f"{self.url.rstrip('/')}/{name}"

    def put(self, source: Path, name: str) -> None:
        """Copies a local file there; an earlier one of that name is replaced."""
        with self._opened(name) as (filesystem, path):
            if _is_local(filesystem):
                with new_file(path) as part:
                    shutil.copyfile(source, part)
            else:
                filesystem.put_file(str(source), path)

    def write(self, data: bytes, name: str) -> None:
        """The same with a file's content."""
        with self._opened(name) as (filesystem, path):
            if _is_local(filesystem):
                with new_file(path) as part:
                    part.write_bytes(data)
            else:
                filesystem.pipe_file(path, data)

    def get(self, name: str, target: Path) -> bool:
        """Copies a file from there to `target`; False where there is none."""
        with self._opened(name) as (filesystem, path):
            try:
                with new_file(target) as part:
                    filesystem.get_file(path, str(part))
            except FileNotFoundError:
                return False
            return True

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none."""
        with self._opened(name) as (filesystem, path):
            try:
                return int(filesystem.info(path)["size"])
            except FileNotFoundError:
                return None

    def names(self, folder: str) -> list[str]:
        """The files of a folder, with the folder; none where it does not exist."""
        with self._opened(folder) as (filesystem, path):
            try:
                found = filesystem.ls(path, detail=False)
            except FileNotFoundError:
                return []
            return sorted(f"{folder}/{name.rsplit('/', 1)[1]}" for name in found)

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        with self._opened(name) as (filesystem, path):
            try:
                filesystem.rm_file(path)
            except FileNotFoundError:
                return

    def remove_folder(self, folder: str) -> None:
        """Removes a folder with all that is in it, if it is there."""
        with self._opened(folder) as (filesystem, path):
            try:
                filesystem.rm(path, recursive=True)
            except FileNotFoundError:
                return

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[Any, str]]:
        import fsspec

        try:
            filesystem, path = fsspec.core.url_to_fs(self.file(name), use_listings_cache=False)
        except (ImportError, ValueError) as error:  # no such protocol, or its package is missing
            raise InputError(
                f"compute.store {self.url}: {error}; for S3 install shrinkflow[s3]"
            ) from None
        try:
            yield filesystem, path
        except Exception as error:  # each kind of store has errors of its own
            raise ShrinkflowError(
                f"compute.store {self.url} cannot be used ({type(error).__name__}: {error}); check "
                "that it exists, and that this machine may read and write it"
            ) from None


def _is_local(filesystem: Any) -> bool:
    protocols = filesystem.protocol
    return "file" in ((protocols,) if isinstance(protocols, str) else protocols)
