"""Every test is offline, quiet and leaves nothing outside its own folders."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tasks  # sets the defaults that a run has, before anything reads them
from tasks.server import Server
from tests import services
from tests.flows.workspaces import TINY, WORDS, at_server, call, write_workspace

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "MPLBACKEND": "agg",
}
os.environ.pop("MLFLOW_TRACKING_URI", None)  # the store of whoever runs the tests
assert tasks


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests first, so that the workers end at about the same time. Of them, those
    that look at one finished workspace come last: whoever begins with them waits for it."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    after = {item.path for item in items if "done" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: (item.path not in slow, item.path in after))


@pytest.fixture(scope="session")
def postgres() -> Iterator[services.Postgres]:
    """A PostgreSQL cluster for all tests: each makes a database of its own in it."""
    with services.postgres() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def s3() -> Iterator[services.S3]:
    """An S3 endpoint for all tests: each uses a prefix of its own in the bucket."""
    with services.s3() as storage:
        yield storage


Once = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """`once(name, make)`: a folder that `make` fills in the first of the processes that run the
    tests side by side; the others find it there. Not to be changed."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def found(name: str, make: Callable[[Path], None]) -> Path:
        folder, done = base / f"once-{name}", base / f"once-{name}.done"
        with (base / f"once-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # where making it failed before
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return found


@pytest.fixture(scope="session")
def tiny_model(once: Once) -> Path:
    """A masked-LM BERT folder: 2 layers, hidden 16, a word-piece vocabulary of whole words."""
    return once("tiny", make_tiny_model)


def make_tiny_model(folder: Path) -> None:
    import torch
    from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    BertTokenizerFast(vocab={w: i for i, w in enumerate(words)}).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertForMaskedLM(config).save_pretrained(folder)


@pytest.fixture(scope="session")
def prefect_home(once: Once) -> Path:
    """Prefect's database, made once: that takes longer than what is tested with it."""

    def make(home: Path) -> None:
        server = Server(home)
        server.wait()
        server.stop()

    return once("prefect", make)


@pytest.fixture(scope="session")
def standing_server(
    prefect_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One server for all flows that run in this process, and for runs in processes of their own
    where the test is not about them."""
    home = tmp_path_factory.mktemp("server") / "prefect"
    shutil.copytree(prefect_home, home)
    started = Server(home)
    try:
        started.wait()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def server(standing_server: Server) -> Server:
    """The same; in tests/flows, flows in this process run on it."""
    return standing_server


@pytest.fixture(scope="module")
def users_server(server: Server) -> Iterator[None]:
    """The user has a Prefect server, for all tests of a file."""
    with at_server(server.url):
        yield


@pytest.fixture(scope="session")
def done(once: Once, tiny_model: Path, prefect_home: Path, standing_server: Server) -> Path:
    """A workspace in which a run has ended well; not to be changed."""

    def make(folder: Path) -> None:
        write_workspace(folder, tiny_model, TINY)
        shutil.copytree(prefect_home, folder / ".shrinkflow" / "prefect")
        with at_server(standing_server.url):
            run = call(folder, "shrinkflow", "run")
        assert run.returncode == 0, run.stderr

    return once("done", make)


@pytest.fixture
def tiny(tmp_path: Path, tiny_model: Path, prefect_home: Path) -> Path:
    """A folder with params.yaml, rows.csv and the model, ready to run."""
    write_workspace(tmp_path, tiny_model, TINY)
    shutil.copytree(prefect_home, tmp_path / ".shrinkflow" / "prefect")
    return tmp_path
