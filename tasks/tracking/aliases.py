"""champion, challenger, previous: found, and moved so that there is a champion at every moment."""

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from compress.errors import InputError

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"


def held(client: MlflowClient, name: str) -> dict[str, str]:
    """Which version number each alias stands for. InputError where there is no such model."""
    try:
        found = client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise InputError(
            f"tracking.model_name: `{name}` is not in the registry; `shrinkflow run` registers it"
        ) from None
    return {alias: str(number) for alias, number in found.items()}


def find(client: MlflowClient, name: str, wanted: str) -> ModelVersion:
    """The version of a number or an alias. InputError that says what there is instead."""
    aliases = held(client, name)
    number = aliases.get(wanted, wanted)
    try:
        if number.isdecimal():
            return client.get_model_version(name, str(int(number)))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
    versions = client.search_model_versions(f"name = '{name}'")
    numbers = ", ".join(str(n) for n in sorted(int(v.version) for v in versions))
    known = ", ".join(f"{alias} ({n})" for alias, n in sorted(aliases.items()))
    raise InputError(
        f"{name} has no version `{wanted}`; its versions: {numbers or 'none'}; "
        f"its aliases: {known or 'none'}"
    )


def make_champion(client: MlflowClient, version: ModelVersion) -> str | None:
    """Gives `champion` to a version and `previous` to the one that had it; returns its number.

    One call moves an alias, so wherever this ends, there is a champion if there was one. `previous`
    comes first: a death in between leaves both on the old champion, never on one older still.
    """
    name, number = version.name, str(version.version)
    aliases = held(client, name)
    old = aliases.get(CHAMPION)
    if old != number:
        if old is not None:
            client.set_registered_model_alias(name, PREVIOUS, old)
        client.set_registered_model_alias(name, CHAMPION, number)
    if aliases.get(CHALLENGER) == number:
        client.delete_registered_model_alias(name, CHALLENGER)
    return old


def bring_back(client: MlflowClient, name: str, number: str) -> None:
    """Gives `champion` to the version that is `previous`, which no version is afterwards."""
    client.set_registered_model_alias(name, CHAMPION, number)
    client.delete_registered_model_alias(name, PREVIOUS)
