"""A Dask cluster that the layers are compressed on: what can be known of it before work starts.

Workers are processes that others have started (docs/scaling.md). Each is asked once what it runs,
whether it can use the shared store and whether it reaches Prefect.
"""

import logging
import os
import platform
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from compress.config import ComputeConfig, Params
from compress.errors import InputError, ShrinkflowError
from tasks import source
from tasks.shared import SharedFolder
from tasks.stages import TABLE
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from distributed import Client
    from prefect.task_runners import TaskRunner

CONNECT_SECONDS = 10
API_SECONDS = 5
ADDRESS = "DASK_SCHEDULER_ADDRESS"


@dataclass(frozen=True)
class Report:
    """What a worker says of itself; a problem is None where there is none."""

    python: str
    code: str
    gpus: int
    store: str | None
    prefect: str | None


def shared_folder(params: Params, workspace: Workspace) -> SharedFolder | None:
    """`compute.store`; for Dask, where it is left out, the state of the project itself.

    None: the layers stay in this project, and nothing is shared.
    """
    if params.compute.store:
        return SharedFolder(params.compute.store)
    if params.compute.runner == "dask":
        return SharedFolder(str(workspace.layers.parent))
    return None


def task_runner(params: Params) -> "TaskRunner[Any]":
    """Prefect's runner of the mapped tasks: threads of this process, or the workers of Dask."""
    if params.compute.runner == "threads":
        from prefect.task_runners import ThreadPoolTaskRunner

        return ThreadPoolTaskRunner(max_workers=params.quantize.workers)
    with _dask_needed():
        from prefect_dask import DaskTaskRunner

    options = {"timeout": CONNECT_SECONDS}
    return DaskTaskRunner(address=_address(params.compute), client_kwargs=options)


@contextmanager
def taking(resources: Mapping[str, float]) -> Iterator[None]:
    """Tasks that are submitted inside take `resources` of a Dask worker."""
    if not resources:
        yield
        return
    import dask

    with dask.annotate(resources=dict(resources)):
        yield


def check_compute(params: Params, workspace: Workspace) -> None:
    """Raises InputError where the places that `compute` names cannot be used."""
    if params.compute.runner == "dask":
        check(params, workspace)
    elif params.compute.store:
        store = SharedFolder(params.compute.store)
        with _probe(store) as (name, text):
            problem = _try_store(store, name, text)
        if problem:
            raise InputError(problem)


def check(params: Params, workspace: Workspace) -> int:
    """Makes sure that the workers can do the work; returns how many GPUs they have.

    Raises InputError, which lists every problem of every worker, where the scheduler cannot be
    reached, there is no worker, or one has other code or sees neither the store nor Prefect.
    """
    from prefect.settings import PREFECT_API_URL

    api = PREFECT_API_URL.value()
    if not api:
        raise InputError("compute.runner dask needs a Prefect server: set PREFECT_API_URL to it")
    with _client(params.compute) as client:
        workers = _eligible(client, params.compute)
        reports = _ask(client, list(workers), _shared(params, workspace), api)
    problems = [
        f"worker {address}: {problem}"
        for address, report in reports.items()
        for problem in _problems(report, params, workspace, api)
    ]
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise InputError(f"the Dask workers cannot do the work:\n{lines}")
    gpus = [report.gpus for report in reports.values() if isinstance(report, Report)]
    return sum(workers.values()) if all(gpus) else 0


def look_around(store: SharedFolder, name: str, text: str, api: str) -> Report:
    """Run by a worker: reads `text` from the file `name` of the store, writes one, asks Prefect."""
    import torch

    return Report(
        python=python_version(),
        code=code_version(),
        gpus=torch.cuda.device_count(),
        store=_try_store(store, name, text),
        prefect=_try_prefect(api),
    )


def python_version() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def code_version() -> str:
    """Of all code that takes part in compressing a layer."""
    return source.code_version(["tasks.layers", "compress.remote", *TABLE["quantize"].code])


def _try_store(store: SharedFolder, name: str, text: str) -> str | None:
    own = f"{name}-{uuid.uuid4().hex[:8]}"
    try:
        with TemporaryDirectory() as folder:
            file = Path(folder) / "probe"
            if not store.get(name, file) or file.read_text() != text:
                return f"sees another folder as {store.url}"
            store.put(file, own)
            store.remove(own)
    except (ShrinkflowError, OSError) as error:
        return str(error)
    return None


def _try_prefect(api: str) -> str | None:
    try:
        with urllib.request.urlopen(f"{api.rstrip('/')}/health", timeout=API_SECONDS):
            return None
    except urllib.error.HTTPError:
        return None  # it answers; what it wants (a key, say) comes with each task
    except (urllib.error.URLError, OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def _problems(report: Any, params: Params, workspace: Workspace, api: str) -> Iterator[str]:
    if not isinstance(report, Report):
        yield f"has no such shrinkflow ({type(report).__name__}: {report}); install this version"
        return
    if report.python != python_version():
        yield f"runs Python {report.python}, this process {python_version()}; use the same"
    if report.code != code_version():
        yield "has other code of shrinkflow than this process; update it and restart the worker"
    if report.store is not None:
        folder = _shared(params, workspace).url
        yield f"{report.store}. Set compute.store to a folder or bucket that all see, not {folder}"
    if report.prefect is not None:
        yield (
            f"cannot reach Prefect at {api} ({report.prefect}); start `prefect server start --host "
            "ADDRESS` where all machines reach it and set PREFECT_API_URL"
        )


def _eligible(client: "Client", compute: ComputeConfig) -> dict[str, int]:
    """Addresses and threads of the workers that have what a task takes."""
    known: Mapping[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    if not known:
        raise InputError(
            f"the Dask scheduler {_address(compute)} has no workers; start some: "
            f"`dask worker {_address(compute)} --nthreads 1`"
        )
    fit = {
        address: int(facts["nthreads"])
        for address, facts in known.items()
        if all(facts["resources"].get(n, 0) >= amount for n, amount in compute.resources.items())
    }
    if not fit:
        wanted = " ".join(f"{name}={amount:g}" for name, amount in compute.resources.items())
        raise InputError(
            f"compute.resources: none of the {len(known)} Dask workers has {wanted}; start them "
            f"with `dask worker --resources '{wanted}'`"
        )
    return fit


def _ask(
    client: "Client", workers: list[str], store: SharedFolder, api: str
) -> dict[str, Report | Exception]:
    with _probe(store) as (name, text):
        return client.run(look_around, store, name, text, api, workers=workers, on_error="return")


@contextmanager
def _probe(store: SharedFolder) -> Iterator[tuple[str, str]]:
    """The name of a file in the store, and what is in it. Raises InputError where it cannot be."""
    name, text = f"probe-{uuid.uuid4().hex}", uuid.uuid4().hex
    with TemporaryDirectory() as folder:
        file = Path(folder) / "probe"
        file.write_text(text)
        try:
            store.put(file, name)
        except ShrinkflowError as error:
            raise InputError(str(error)) from None
    try:
        yield name, text
    finally:
        store.remove(name)


def _shared(params: Params, workspace: Workspace) -> SharedFolder:
    found = shared_folder(params, workspace)
    assert found is not None
    return found


def _address(compute: ComputeConfig) -> str:
    address = compute.address or os.environ.get(ADDRESS)
    if not address:
        raise InputError(f"compute.address: give that of a Dask scheduler, or set {ADDRESS}")
    return address


@contextmanager
def _client(compute: ComputeConfig) -> Iterator["Client"]:
    with _dask_needed():
        import distributed
    # It writes to the terminal by itself; its warnings belong into the log.
    logging.getLogger("distributed").handlers.clear()
    logging.getLogger("distributed").propagate = True
    address = _address(compute)
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(
            f"compute.address: no Dask scheduler answers at {address} ({error}); start `dask "
            "scheduler` or correct the address"
        ) from None
    with client:
        yield client


@contextmanager
def _dask_needed() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise InputError(f"compute.runner dask: {error}; install shrinkflow[dask]") from None
