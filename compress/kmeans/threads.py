"""Work in threads, for kernels that release the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="kmeans")


if hasattr(os, "register_at_fork"):  # the threads of a pool do not survive a fork
    os.register_at_fork(after_in_child=_pool.cache_clear)


def in_threads(work: Callable[[int], None], count: int) -> None:
    """Run work(0) ... work(count - 1) on as many threads as torch uses.

    Jobs only compute, they never wait for each other, so any number of fits may share the pool.
    """
    threads = min(torch.get_num_threads(), count)
    jobs = iter(range(count))  # shared: taking the next job is atomic under the GIL

    def drain(jobs: Iterator[int]) -> None:
        for job in jobs:
            work(job)

    if threads <= 1:
        drain(jobs)
    else:
        list(_pool(threads).map(drain, [jobs] * threads))
