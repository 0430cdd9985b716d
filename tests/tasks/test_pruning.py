"""What may go from the layer store, and what never does."""

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import ShrinkflowError
from tasks.layer_needs import Needs, workspaces
from tasks.lock import BusyError, workspace_lock
from tasks.outputs import write_json
from tasks.pruning import LEFTOVER_SECONDS, choose, prune, survey
from tasks.store import LayerStore, StoredFile
from tasks.tracking.version_layers import REGISTRIES
from tests.services import free_port

DAY = 86400
NOW = 1_800_000_000.0


@st.composite
def stores(draw):
    """Files of a store, and which of their keys are needed."""
    files = []
    for i in range(draw(st.integers(0, 12))):
        key = None if draw(st.integers(0, 4)) == 0 else f"{i:064x}"
        age = draw(st.integers(0, 60 * DAY))
        files.append(StoredFile(f"{i:02d}", key, draw(st.integers(1, 100)), NOW - age))
    keys = [f.key for f in files if f.key]
    needed = draw(st.sets(st.sampled_from(keys))) if keys else set()
    return files, Needs({key: {"a version"} for key in needed})


@given(stores(), st.none() | st.integers(0, 60 * DAY), st.none() | st.integers(0, 1200))
def test_only_what_nobody_needs_goes_the_least_recently_used_first(given_, age, size):
    files, needed = given_
    chosen = choose(files, needed, now=NOW, max_age=age, max_bytes=size)
    assert len(set(chosen)) == len(chosen) and set(chosen) <= set(files)
    assert not any(needed.of(file) for file in chosen)
    for file in chosen:
        if file.key is None:
            assert NOW - file.used > LEFTOVER_SECONDS
    kept = [f for f in files if f not in chosen]
    free = [f for f in kept if f.key is not None and not needed.of(f)]
    gone = [f for f in chosen if f.key is not None]
    if age is not None:
        assert not any(NOW - f.used > age for f in free)
    if size is not None:
        assert sum(f.bytes for f in kept) <= size or not free
    if gone and free:
        assert max(f.used for f in gone) <= min(f.used for f in free)


@pytest.fixture
def store(finished):
    """The four layers that the outputs were made of, one that nobody needs, and a leftover."""
    workspace, _ = finished
    workspace.state.mkdir()
    keys = [f"{i:02x}" * 32 for i in range(5)]
    store = LayerStore(workspace.layers)
    for key in keys:
        store.path(key).parent.mkdir(parents=True)
        store.path(key).write_bytes(b"x" * 10)
    part = store.path(keys[0]).with_name(".killed.safetensors.1.part")
    part.write_bytes(b"x" * 7)
    os.utime(part, (0, time.time() - 2 * DAY))
    return workspace, store, keys


def left(store):
    return sorted(file.key or "leftover" for file in store.files())


def test_layers_of_present_outputs_stay(store):
    workspace, layers, keys = store
    assert workspaces(workspace.root) == [workspace]
    found = survey(workspace.root)
    assert [f.key for f, _ in found.layers if not found.needs.of(f)] == [keys[4]]
    assert {method for _, method in found.layers} == {"damaged"} and len(found.leftovers) == 1
    everything = {"max_age": None, "max_bytes": 0}
    removed, bytes_left = prune(workspace.root, **everything, dry_run=True)
    assert (len(removed), bytes_left) == (2, 40)
    assert left(layers) == [*keys, "leftover"]
    prune(workspace.root, **everything, dry_run=False)
    assert left(layers) == keys[:4]
    workspace.plot("layers").unlink()
    prune(workspace.root, max_age=DAY, max_bytes=None, dry_run=False)
    assert left(layers) == keys[:4]  # used today
    prune(workspace.root, **everything, dry_run=False)
    assert left(layers) == []


def test_layers_of_a_killed_run_stay(store):
    workspace, layers, keys = store
    workspace.plot("layers").unlink()
    write_json(workspace.state / "run.json", {"mlflow_run": "x"})
    since = time.time()
    for key, used in zip(keys, (-60, -5, 5, 10, 15), strict=True):
        os.utime(layers.path(key), (since + used, since - DAY))
    os.utime(workspace.state / "run.json", (since, since))
    prune(workspace.root, max_age=None, max_bytes=0, dry_run=False)
    assert left(layers) == keys[2:]


def test_nothing_goes_during_a_run(store):
    workspace, layers, keys = store
    with workspace_lock(workspace), pytest.raises(BusyError):
        prune(workspace.root, max_age=None, max_bytes=0, dry_run=False)
    assert left(layers) == [*keys, "leftover"]


def test_nothing_goes_where_a_registry_cannot_be_asked(store):
    """Also where no workspace names that registry any more."""
    workspace, layers, keys = store
    registry = workspace.project / ".shrinkflow" / REGISTRIES / "one.json"
    write_json(registry, {"uri": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(ShrinkflowError, match="MLflow at http"):
        prune(workspace.root, max_age=0, max_bytes=None, dry_run=False)
    assert left(layers) == [*keys, "leftover"]
    found = survey(workspace.root)
    assert found.needs is None and "MLflow at http" in found.problem
