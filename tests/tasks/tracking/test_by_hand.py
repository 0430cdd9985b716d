"""Versions moved by hand in a real registry on SQLite: there is a champion at every moment."""

import threading
from contextlib import suppress
from itertools import count

import pandas as pd
import pytest
import yaml
from mlflow.entities import Metric, Param

from compress.errors import InputError
from compress.params_yaml import load_params
from tasks import tracking
from tasks.tracking import aliases
from tasks.tracking.by_hand import promote, rollback
from tasks.tracking.connection import FAILURES, connected
from tasks.tracking.lookup import versions
from tasks.workspace import Workspace

PARAMS = {
    "model": {"source": "model"},
    "data": {"source": "rows.csv", "holdout": 4},
    "pretrain": {"enabled": False, "data": {"source": "rows.csv"}},
    "quantize": {"groups": [{"name": "ffn", "layers": ["**.dense"]}]},
}
TAGS = {"score": "85.0", "drop": "1.0", "ratio": "20.0", "bytes": "1000", "metric": "accuracy"}
TAGS |= {"data_hash": "b" * 64, "load_back": "passed"}
numbers = count()


def new_workspace(root):
    root.mkdir(exist_ok=True)
    workspace = Workspace(root)
    workspace.params_file.write_text(yaml.safe_dump(PARAMS))
    return workspace


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    workspace = new_workspace(tmp_path_factory.mktemp("by-hand"))
    params = load_params(workspace.params_file)
    tracking.check(params, workspace)
    with connected(workspace, params) as client:
        yield workspace, client


class Model:
    """A registered model of its own with three versions: 1 is champion, 2 challenger."""

    def __init__(self, workspace, client):
        self.workspace, self.client, self.name = workspace, client, f"model-{next(numbers)}"
        self.params = load_params(workspace.params_file, [f"tracking.model_name={self.name}"])
        client.create_registered_model(self.name)
        for _ in range(3):
            source = f"file://{workspace.root}"
            client.create_model_version(self.name, source, tags=TAGS)
        client.set_registered_model_alias(self.name, "champion", "1")
        client.set_registered_model_alias(self.name, "challenger", "2")

    def aliases(self):
        return aliases.held(self.client, self.name)

    def tags(self, number):
        return self.client.get_model_version(self.name, str(number)).tags

    def promote(self, wanted):
        return promote(self.workspace, self.params, wanted)

    def rollback(self):
        return rollback(self.workspace, self.params)


@pytest.fixture
def model(store):
    return Model(*store)


def test_promoted_challenger_is_champion_and_the_champion_previous(model):
    said = model.promote("challenger")
    assert "version 2 is champion" in said and "version 1 is now `previous`" in said
    assert model.aliases() == {"champion": "2", "previous": "1"}
    assert "after version 1" in model.tags(2)["reason"]
    assert "already" in model.promote("2")
    assert model.aliases() == {"champion": "2", "previous": "1"}
    model.promote("previous")
    assert model.aliases() == {"champion": "1", "previous": "2"}


def test_rollback_brings_the_previous_back_once_and_says_who_did_it(model):
    model.promote("2")
    said = model.rollback()
    assert "version 1 is champion again" in said
    assert model.aliases() == {"champion": "1"}
    assert "rolled back version 2" in model.tags(1)["reason"]
    assert "UTC" in model.tags(2)["rolled_back"]
    with pytest.raises(InputError, match="no champion before version 1 is known"):
        model.rollback()
    model.promote("2")  # whoever rolled it back may think again
    assert "rolled_back" not in model.tags(2)
    assert model.aliases() == {"champion": "2", "previous": "1"}


@pytest.mark.parametrize("tag", [None, "not yet", "failed: no module named x"])
def test_version_that_did_not_load_is_never_champion(model, tag):
    model.client.delete_model_version_tag(model.name, "3", "load_back")
    if tag:
        model.client.set_model_version_tag(model.name, "3", "load_back", tag)
    with pytest.raises(InputError, match=f"version 3 .* not been loaded back.*{tag or 'no tag'}"):
        model.promote("3")
    assert model.aliases() == {"champion": "1", "challenger": "2"}


@pytest.mark.parametrize("wanted", ["4", "0", "best", "-1", "1.5", "", "³"])
def test_unknown_version_says_what_there_is(model, wanted):
    with pytest.raises(InputError) as caught:
        model.promote(wanted)
    message = str(caught.value)
    assert f"no version `{wanted}`" in message
    assert "versions: 1, 2, 3" in message and "challenger (2), champion (1)" in message


def test_unknown_model_and_empty_store(store, tmp_path):
    workspace, _ = store
    params = load_params(workspace.params_file, ["tracking.model_name=other"])
    with pytest.raises(InputError, match="`other` is not in the registry"):
        rollback(workspace, params)
    fresh = new_workspace(tmp_path / "fresh")
    with pytest.raises(InputError, match="nothing has been registered here yet"):
        promote(fresh, params, "1")
    assert not fresh.mlflow.exists()


class Died(BaseException):
    """What SIGKILL leaves no time for."""


class Dying:
    """A client that dies instead of making its call number `limit` that changes an alias."""

    def __init__(self, client, limit):
        self._client, self._left = client, limit

    def __getattr__(self, name):
        call = getattr(self._client, name)
        if "alias" not in name or name.startswith("get"):
            return call

        def counted(*args):
            if self._left == 0:
                raise Died
            self._left -= 1
            return call(*args)

        return counted


def test_death_between_two_calls_leaves_a_champion_and_is_made_good(model):
    """`promote` moves three aliases, a rollback two: each may be the last thing that happened."""
    version = model.client.get_model_version(model.name, "2")
    for calls in range(3):
        with pytest.raises(Died):
            aliases.make_champion(Dying(model.client, calls), version)
        assert model.aliases()["champion"] == ("2" if calls == 2 else "1")
        if calls < 2:
            assert model.aliases().get("previous", "1") == "1"
    aliases.make_champion(model.client, version)
    for calls in range(2):
        with pytest.raises(Died):
            aliases.bring_back(Dying(model.client, calls), model.name, "1")
        assert model.aliases()["champion"] == ("1" if calls else "2")
    with pytest.raises(InputError, match="no champion before"):  # never a wrong one
        model.rollback()


def test_racing_moves_never_leave_a_moment_without_champion(model):
    found = [model.client.get_model_version(model.name, n) for n in "23"]
    done, seen = threading.Event(), []

    def watch():
        while not done.is_set():
            seen.append(model.aliases().get("champion"))

    def move(version):
        for _ in range(4):
            with suppress(*FAILURES):  # whoever loses a race may be told so
                aliases.make_champion(model.client, version)
                aliases.bring_back(model.client, model.name, "1")

    watcher = threading.Thread(target=watch)
    movers = [threading.Thread(target=move, args=(version,)) for version in found]
    for thread in (watcher, *movers):
        thread.start()
    for thread in movers:
        thread.join()
    done.set()
    watcher.join()
    assert seen and None not in seen
    assert model.aliases()["champion"] in {"1", "2", "3"}


def test_lookup_finds_what_was_logged(model, tmp_path):
    client = model.client
    (experiment,) = client.search_experiments(filter_string="name = 'shrinkflow'")
    run = client.create_run(experiment.experiment_id).info.run_id
    client.log_batch(run, params=[Param("seed", "7")], metrics=[Metric("score", 1, 0, 0)])
    tags = {"mlflow.parentRunId": run, "stage": "quantize"}
    child = client.create_run(experiment.experiment_id, tags=tags).info.run_id
    table = pd.DataFrame({"name": ["a", "b"], "relative_distortion": [0.1, 0.2]})
    table.to_csv(tmp_path / "layers.csv", index=False)
    client.log_artifact(child, str(tmp_path / "layers.csv"))
    client.create_model_version(model.name, f"file://{tmp_path}", run_id=run, tags=TAGS)

    full, bare = versions(model.workspace, model.params, "4", "champion")
    assert full.params == {"seed": "7"} and full.aliases == () and full.judged.score == 85.0
    pd.testing.assert_frame_equal(full.layers, table)
    assert (bare.params, bare.layers, bare.aliases) == ({}, None, ("champion",))
    client.delete_model_version_tag(model.name, "1", "score")
    with pytest.raises(InputError, match="version 1 has no tag score: it was not registered by"):
        versions(model.workspace, model.params, "4", "champion")
