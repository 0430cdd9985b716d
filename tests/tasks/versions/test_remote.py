"""Real remotes, a folder and S3: what one workspace hands over a clone of it need not compute."""

import shutil
import subprocess
import uuid

import pytest

from compress.params_yaml import load_params
from tasks.versions import open_versions
from tasks.workspace import STAGES, Workspace
from tests.services import free_port
from tests.tasks.versions.recorded import make, record_all

GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]


def git(folder, *command):
    done = subprocess.run([*GIT, *command], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def recorded(tmp_path):
    """A git repository in which every stage is recorded, and its workspace."""
    folder = tmp_path / "first"
    folder.mkdir()
    git(folder, "init", "-q")
    workspace = make(folder)
    record_all(workspace)
    return workspace


def set_remote(workspace, url, **options):
    lines = ["[core]", "    analytics = false", "    remote = team", "['remote \"team\"']"]
    lines += [f"    {name} = {value}" for name, value in ({"url": url} | options).items()]
    (workspace.root / ".dvc" / "config").write_text("\n".join(lines) + "\n")


def clone(workspace, name):
    git(workspace.root, "add", "-A")
    git(workspace.root, "commit", "-qm", "recorded", "--allow-empty")
    folder = workspace.root.parent / name
    git(workspace.root.parent, "clone", "-q", str(workspace.root), str(folder))
    return Workspace(folder)


def restored(workspace):
    """The stages that could be had without running them."""
    params = load_params(workspace.params_file)
    found = []
    with open_versions(workspace) as versions:
        for name in STAGES:
            assert versions.changes(name)
            if versions.restore(name):
                versions.record(name, params)
                found.append(name)
    return found


@pytest.fixture(params=["folder", "s3"])
def remote(request, tmp_path, monkeypatch):
    """Where a remote lies, as DVC's configuration says it."""
    if request.param == "folder":
        return {"url": str(tmp_path / "remote")}
    storage = request.getfixturevalue("s3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, storage.environment[name])
    prefix = uuid.uuid4().hex
    return {"url": f"s3://{storage.bucket}/{prefix}", "endpointurl": storage.endpoint}


def test_a_clone_takes_everything_from_the_remote(recorded, remote):
    set_remote(recorded, **remote)
    with open_versions(recorded) as versions:
        assert "is in the DVC remote `team`" in (versions.remote.push() or "")
    with open_versions(recorded) as versions:
        assert versions.remote.push() is None  # nothing has changed since
    copy = clone(recorded, "second")
    assert restored(copy) == list(STAGES)
    for path in recorded.artifacts.rglob("*.json"):
        assert (copy.root / path.relative_to(recorded.root)).read_bytes() == path.read_bytes()
    assert git(copy.root, "status", "--porcelain") == ""  # dvc.lock is as it was committed


def test_the_run_cache_alone_is_enough(recorded, tmp_path):
    """Where nobody committed dvc.lock the remote still knows which results belong to the inputs."""
    set_remote(recorded, str(tmp_path / "remote"))
    with open_versions(recorded) as versions:
        versions.remote.push()
    other = clone(recorded, "second")
    other.dvc_file.with_suffix(".lock").unlink()
    assert restored(other) == list(STAGES)


def test_without_a_remote_nothing_is_asked(recorded):
    with open_versions(recorded) as versions:
        assert versions.remote.push() is None
        assert not versions.remote.fetch_runs()
        shutil.rmtree(recorded.root / ".dvc" / "cache")
        shutil.rmtree(recorded.artifacts)
        assert not versions.restore("prepare")


def test_a_remote_that_does_not_answer_stops_nothing(recorded, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    set_remote(recorded, str(tmp_path / "file" / "remote"))
    with open_versions(recorded) as versions:
        text = versions.remote.push() or ""
        assert "`team` does not answer" in text and "dvc push --run-cache" in text
        assert text == versions.remote.push()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-that-nobody-sees")
    set_remote(recorded, "s3://team/none", endpointurl=f"http://127.0.0.1:{free_port()}")
    copy = clone(recorded, "second")
    with open_versions(copy) as versions:
        assert not versions.restore("prepare")
        text = versions.remote.push() or ""
    assert "does not answer" in text and "secret-that" not in text
