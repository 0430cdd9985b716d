"""One truth, whoever makes a stage: the flow, `dvc exp run`, a clone that takes it from a remote.

Real processes in a git repository with a default remote; minutes, so they are run once.
"""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from tasks.results import layer_keys
from tasks.workspace import STAGES, Workspace
from tests.flows.workspaces import TINY, call, marks, write_workspace

pytestmark = pytest.mark.slow
GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]


def git(folder: Path, *command: str) -> str:
    done = subprocess.run([*GIT, *command], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def dvc(folder: Path, *command: str) -> str:
    done = call(folder, "dvc", *command, timeout=480)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def story(tmp_path_factory, tiny_model, users_server) -> SimpleNamespace:
    top = tmp_path_factory.mktemp("team")
    folder, remote = top / "first", top / "remote"
    folder.mkdir()
    git(folder, "init", "-q")
    write_workspace(folder, tiny_model, TINY)
    dvc(folder, "init", "-q")
    dvc(folder, "remote", "add", "-q", "-d", "team", str(remote))
    seen = SimpleNamespace(folder=folder, remote=remote)

    seen.run = call(folder, "shrinkflow", "run")
    seen.status = dvc(folder, "status")
    seen.cloud = dvc(folder, "status", "--cloud")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    seen.untouched = git(folder, "status", "--porcelain")

    clone = top / "second"
    git(top, "clone", "-q", str(folder), str(clone))
    seen.clone, seen.cloned = clone, call(clone, "shrinkflow", "run")
    seen.clone_status = dvc(clone, "status")
    seen.clone_changes = git(clone, "status", "--porcelain")

    seen.experiment = dvc(folder, "exp", "run", "-S", "quantize.row_scale=true", "--name", "scaled")
    seen.experiment_status = dvc(folder, "status")
    seen.after_experiment = call(folder, "shrinkflow", "run")
    seen.metrics = json.loads(dvc(folder, "metrics", "diff", "--json"))
    seen.shown = json.loads(dvc(folder, "exp", "show", "--json"))
    seen.plots = json.loads(dvc(folder, "plots", "diff", "HEAD", "--json"))

    seen.keys = set(layer_keys(Workspace(folder)))
    seen.other = call(folder, "shrinkflow", "run", "-S", "quantize.groups.attention.block_size=2")
    seen.other_keys = set(layer_keys(Workspace(folder)))
    seen.other_status = dvc(folder, "status")
    seen.cache = call(folder, "shrinkflow", "cache")
    seen.pruned = call(folder, "shrinkflow", "cache", "prune", "--max-size", "0B")
    return seen


def test_a_run_hands_its_results_to_the_remote(story):
    assert not any(marks(story.run).values())
    assert "everything is in the DVC remote `team`" in story.run.stderr
    assert "up to date" in story.status
    assert "in sync" in story.cloud
    assert story.untouched == ""


def test_a_clone_computes_nothing(story):
    assert marks(story.cloned) == dict.fromkeys(STAGES, True)
    assert "up to date" in story.clone_status
    assert story.clone_changes == ""
    assert not list(story.clone.glob(".shrinkflow/layers/*/*"))


def test_an_experiment_is_believed_and_the_other_way_round(story):
    assert story.experiment.count("didn't change, skipping") == 3
    assert "up to date" in story.experiment_status
    assert marks(story.after_experiment) == dict.fromkeys(STAGES, True)


def test_tables_of_dvc_say_what_changed(story):
    changed = story.metrics["artifacts/metrics/quantize.json"]
    assert changed["bits_per_weight"]["new"] > changed["bits_per_weight"]["old"]
    assert "relative_distortion" in changed
    experiments = [e for rev in story.shown for e in rev.get("experiments") or ()]
    [experiment] = [e for e in experiments if e["name"] == "scaled"]
    data = experiment["revs"][0]["data"]
    assert data["params"]["params.yaml"]["data"]["quantize"]["row_scale"] is True
    assert "score" in data["metrics"]["artifacts/metrics/evaluate.json"]["data"]
    for name in ("layers", "groups"):  # a training of two steps has no curve
        text = json.dumps(story.plots["data"][f"artifacts/plots/{name}.csv"])
        assert "HEAD" in text and "workspace" in text


def test_another_block_size_of_attention_shares_everything_before_it(story):
    done = marks(story.other)
    assert [name for name in STAGES if done[name]] == ["prepare", "pretrain", "finetune"]
    assert "up to date" in story.other_status
    assert len(story.keys & story.other_keys) == 4  # the layers of ffn
    assert len(story.keys) == len(story.other_keys) == 8


def test_the_cache_keeps_what_outputs_and_versions_need(story):
    assert story.cache.returncode == 0, story.cache.stderr
    for word in ("product", "today", "outputs in first", "tiny version 1", "tiny version 3"):
        assert word in story.cache.stdout
    assert "nobody" not in story.cache.stdout
    assert "0 files removed" in story.pruned.stdout
