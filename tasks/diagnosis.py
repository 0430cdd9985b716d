"""What a failure deep in some library comes down to where the machine is its cause."""

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from compress.errors import InputError

LEAST_FREE = 1 << 20  # bytes; with less, whatever failed failed for want of space
# As the libraries put it: the system, SQLite, Rust, PyTorch's writer and allocators.
FULL = ("no space left", "disk is full", "disk full", "os error 28", "file write failed")
READ_ONLY = ("read-only file system", "readonly database", "os error 30")
MEMORY = ("allocate memory", "out of memory", "cannot allocate")
KEPT = "then start again: what is finished is kept"


def machine_fault(error: BaseException, folder: Path) -> str | None:
    """One sentence for a full disk, a folder that cannot be written, too little memory; else None.

    `folder` is the workspace in which it happened.
    """
    if isinstance(error, InputError):
        return None
    chain = list(_chain(error))
    text = " ".join(str(e) for e in chain).lower()
    numbers = {e.errno for e in chain if isinstance(e, OSError)}
    if errno.ENOSPC in numbers or _has(text, FULL) or _free(folder) < LEAST_FREE:
        return f"no space is left on the disk of {folder}; make room, {KEPT}"
    if errno.EROFS in numbers or _has(text, READ_ONLY):
        return f"a folder of {folder} cannot be written to; make it writable, {KEPT}"
    if any(isinstance(e, MemoryError) for e in chain) or _has(text, MEMORY):
        return (
            "not enough memory; lower quantize.workers or batch_size (`shrinkflow plan` shows the "
            f"peak), {KEPT}"
        )
    return None


def _has(text: str, words: tuple[str, ...]) -> bool:
    return any(word in text for word in words)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _free(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return LEAST_FREE
