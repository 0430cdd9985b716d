"""Servers that tests use, as real processes on loopback: PostgreSQL, S3 (moto), MLflow.

Each is a context manager that yields once the server answers and leaves no process behind. Where a
program is missing the test is skipped and says which. Session fixtures of them are in conftest.py.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

HOST = "127.0.0.1"
START_SECONDS = 120
DEBIAN = "/usr/lib/postgresql/15/bin"
ADMIN = "postgres"  # PostgreSQL refuses to run as root: then it runs as this user
BUCKET = "team"


class Process:
    """A server that can be stopped, killed and started again on the same port, in `folder`."""

    def __init__(self, command: list[str], port: int, folder: Path, **options: object):
        self.command, self.port, self.options = command, port, options
        self.log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, answers: Callable[[], bool] | None = None) -> None:
        """Returns when the server answers: by default, when its port can be connected to."""
        answers = answers or (lambda: is_open(self.port))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self.options,  # type: ignore[call-overload]
            )
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{self.command[0]} did not start:\n{self.log.read_text()}")
            time.sleep(0.1)

    def stop(self, with_signal: int = signal.SIGTERM) -> None:
        """Ends the server and all its children; a second call does nothing."""
        if self._process is None:
            return
        self._process.send_signal(with_signal)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def kill(self) -> None:
        """As a machine that loses power would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self.stop(signal.SIGKILL)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def is_healthy(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def free_port() -> int:
    """A port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def _folder(prefix: str, owner: str | None = None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"shrinkflow-{prefix}-"))
    if owner:
        shutil.chown(folder, owner)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Postgres:
    """A cluster that trusts everybody on loopback."""

    process: Process
    binaries: Path

    def database(self, driver: str = "postgresql", name: str | None = None) -> str:
        """Makes an empty database and returns its URL for `driver` (`postgresql+asyncpg`, ...)."""
        name = name or f"test_{uuid.uuid4().hex[:12]}"
        place = ["-h", HOST, "-p", str(self.process.port), "-U", ADMIN]
        subprocess.run([self.binaries / "createdb", *place, name], check=True)
        return f"{driver}://{ADMIN}@{HOST}:{self.process.port}/{name}"


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A new PostgreSQL cluster in a temporary folder; about two seconds."""
    search = os.pathsep.join([DEBIAN, os.environ.get("PATH", "")])
    found = shutil.which("postgres", path=search)
    if found is None:
        pytest.skip("needs PostgreSQL's server (Debian: postgresql-15)")
    binaries = Path(found).resolve().parent
    user = ADMIN if os.geteuid() == 0 else None
    options = {"user": user, "group": user, "extra_groups": []} if user else {}
    with _folder("postgres", user) as folder:
        data, port = folder / "data", free_port()
        initdb = [binaries / "initdb", "-D", data, "-U", ADMIN, "-A", "trust", "-E", "UTF8"]
        subprocess.run(
            [*initdb, "--no-locale", "--no-sync", "--no-instructions"],
            check=True, stdout=subprocess.DEVNULL, cwd=folder, **options,
        )  # fmt: skip
        command = [str(binaries / "postgres"), "-D", str(data), "-h", HOST, "-p", str(port)]
        for setting in ("fsync=off", "unix_socket_directories=", "shared_buffers=32MB"):
            command += ["-c", setting]
        process = Process(command, port, folder, cwd=folder, **options)
        ready = [binaries / "pg_isready", "-q", "-h", HOST, "-p", str(port)]
        try:
            process.start(lambda: subprocess.run(ready).returncode == 0)
            yield Postgres(process, binaries)
        finally:
            process.stop(signal.SIGQUIT)  # at once


@dataclass
class S3:
    """An S3 endpoint with one bucket. `environment` is what a client has to have set."""

    process: Process
    bucket: str = BUCKET
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.environment = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
            "MLFLOW_S3_ENDPOINT_URL": self.endpoint,
        }

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.process.port}"

    def keys(self, prefix: str = "") -> list[str]:
        """The objects in the bucket, by name."""
        pages = self._client().get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for page in found for entry in page.get("Contents", [])]

    def make_bucket(self) -> None:
        self._client().create_bucket(Bucket=self.bucket)

    def _client(self):
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )


@contextmanager
def s3() -> Iterator[S3]:
    """moto's S3 server with an empty bucket; its objects are gone when it stops."""
    pytest.importorskip("boto3", reason="needs boto3 (pip install shrinkflow[s3])")
    program = Path(sys.executable).with_name("moto_server")
    if not program.is_file():
        pytest.skip("needs moto's S3 server (pip install moto[server])")
    with _folder("s3") as folder:
        port = free_port()
        process = Process([str(program), "-H", HOST, "-p", str(port)], port, folder)
        try:
            process.start()
            storage = S3(process)
            storage.make_bucket()
            yield storage
        finally:
            process.stop()


@contextmanager
def mlflow_server(
    store: str, artifacts: str, environment: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """`mlflow server` on a database URL and an artifact folder or s3:// URL; about 20 seconds."""
    with _folder("mlflow") as folder:
        port = free_port()
        command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
        command += ["--workers", "1", "--backend-store-uri", store]
        command += ["--artifacts-destination", artifacts]
        # Its five processes for jobs (evaluations of agents and the like) have nothing to do here.
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        given = os.environ | quiet | dict(environment or {})
        given.pop("MLFLOW_TRACKING_URI", None)
        process = Process(command, port, folder, env=given)
        try:
            process.start(lambda: is_healthy(f"http://{HOST}:{port}/health"))
            yield process
        finally:
            process.stop()


@dataclass
class Dask:
    """A scheduler and workers, each a process with a working folder of its own."""

    scheduler: Process
    folder: Path
    workers: list[Process] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"tcp://{HOST}:{self.scheduler.port}"

    def add_worker(self, *options: str, **environment: str) -> Process:
        """Starts a worker of one thread; returns when the scheduler knows it."""
        name = f"worker-{len(self.workers)}"
        folder = self.folder / name
        folder.mkdir()
        program = str(Path(sys.executable).with_name("dask"))
        where = ["--host", HOST, "--local-directory", str(folder), "--no-dashboard"]
        what = ["--name", name, "--nthreads", "1", "--no-nanny"]
        process = Process(
            [program, "worker", self.address, *what, *where, *options],
            0,
            folder,
            cwd=folder,
            env=_without_prefect() | environment,
        )
        self.workers.append(process)
        process.start(lambda: b"Registered to" in process.log.read_bytes())
        return process


def _without_prefect() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}


@contextmanager
def dask() -> Iterator[Dask]:
    """A Dask scheduler on loopback; workers are added by the test."""
    pytest.importorskip("prefect_dask", reason="needs Dask (pip install shrinkflow[dask])")
    with _folder("dask") as folder:
        port = free_port()
        program = str(Path(sys.executable).with_name("dask"))
        where = ["--host", HOST, "--port", str(port), "--no-dashboard", "--no-show"]
        scheduler = Process([program, "scheduler", *where], port, folder, cwd=folder)
        cluster = Dask(scheduler, folder)
        try:
            scheduler.start()
            yield cluster
        finally:
            for process in [*cluster.workers, scheduler]:
                process.stop(signal.SIGKILL)  # they would take their time to say goodbye
