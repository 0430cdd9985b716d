"""What people do with versions: make one champion, take the champion back."""

from datetime import UTC, datetime

from mlflow.entities.model_registry import ModelVersion

from compress.config import Params
from compress.errors import InputError
from tasks.tracking import aliases, model_versions
from tasks.tracking.connection import registry
from tasks.tracking.provenance import user
from tasks.workspace import Workspace


def promote(workspace: Workspace, params: Params, wanted: str) -> str:
    """Makes the version of a number or an alias champion, whatever the gate said; says what it did.

    Raises InputError where there is no such version, or it has not been loaded back.
    """
    with registry(workspace, params) as (client, name):
        version = aliases.find(client, name, wanted)
        _require_loadable(version)
        old = aliases.held(client, name).get(aliases.CHAMPION)
        if old == str(version.version):
            return f"{name} version {version.version} is the champion already"
        after = f", after version {old}" if old else ""
        model_versions.set_tags(client, version, {"reason": f"promoted by {user()}{after}"})
        if model_versions.ROLLED_BACK in version.tags:
            client.delete_model_version_tag(name, version.version, model_versions.ROLLED_BACK)
        aliases.make_champion(client, version)
    followed = f"; version {old} is now `previous`" if old else ""
    return f"{name} version {version.version} is champion{followed}"


def rollback(workspace: Workspace, params: Params) -> str:
    """Makes `previous` champion again and marks the champion, which no run promotes any more."""
    with registry(workspace, params) as (client, name):
        found = aliases.held(client, name)
        old, number = found.get(aliases.CHAMPION), found.get(aliases.PREVIOUS)
        if number is None or number == old:
            raise InputError(
                f"{name}: no champion before version {old or '?'} is known; `shrinkflow promote "
                "VERSION` makes any version champion"
            )
        version = client.get_model_version(name, number)
        _require_loadable(version)
        if old is not None:
            when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
            bad = client.get_model_version(name, old)
            model_versions.set_tags(client, bad, {model_versions.ROLLED_BACK: f"{when}, {user()}"})
            reason = f"champion again: {user()} rolled back version {old}"
            model_versions.set_tags(client, version, {"reason": reason})
        aliases.bring_back(client, name, number)
    return f"{name} version {number} is champion again; version {old} is rolled back"


def _require_loadable(version: ModelVersion) -> None:
    found = version.tags.get(model_versions.LOADS)
    if found != "passed":
        raise InputError(
            f"{version.name} version {version.version} cannot be champion: it has not been loaded "
            f"back ({found or 'no tag load_back'}); `shrinkflow run` registers and tries it again"
        )
