"""Where a fit runs: the GPU with the most free memory, one fit at a time on each; else the CPU.

A lock file for each GPU keeps all processes of this user on this machine to one fit a GPU: a fit
fills it. On the CPU the tasks at a time are the limit (`quantize.workers`, or Dask's threads).
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

CPU = torch.device("cpu")
POLL_SECONDS = 0.02


@contextmanager
def borrowed() -> Iterator[torch.device]:
    """A GPU that nothing else of ours is fitting on, when there is one free; the CPU at once where
    there is no GPU. It is free again when the block ends, or with the process, however that dies.
    """
    if not torch.cuda.is_available():
        yield CPU
        return
    while True:
        for device in by_free_memory():
            lock = FileLock(lock_file(device))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                with torch.cuda.device(device):
                    yield device
            finally:
                lock.release()
            return
        time.sleep(POLL_SECONDS)


def by_free_memory() -> list[torch.device]:
    """The GPUs that this process sees, the one with the most free memory first."""
    count = torch.cuda.device_count()
    free = {i: torch.cuda.mem_get_info(i)[0] for i in range(count)}
    return [torch.device("cuda", i) for i in sorted(free, key=lambda i: -free[i])]


def lock_file(device: torch.device) -> Path:
    """The same for all processes, whatever number the GPU has in each of them."""
    name = torch.cuda.get_device_properties(device).uuid
    return Path(tempfile.gettempdir()) / f"shrinkflow-{os.getuid()}-{name}.lock"


def release_memory() -> None:
    """Gives back what PyTorch keeps of GPU memory for later."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
