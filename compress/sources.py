"""Where models and data come from: a hub id, a local path, or `package:module/path`."""

import importlib.util
from pathlib import Path

from compress.errors import HubError, InputError

PACKAGE = "package:"


def local_path(source: str, base: Path) -> Path | None:
    """The file or folder that `source` names, or None where it is a hub id.

    `base` is the folder against which relative paths are read. Raises InputError where a package
    is not installed, where its file is missing, where an explicit path (`./x`, `/x`) is not there.
    """
    if source.startswith(PACKAGE):
        return _inside_package(source)
    try:
        path = (base / Path(source).expanduser()).resolve()
        if path.exists():
            return path
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, nobody's home
        raise InputError(f"{source!r:.200} cannot be a path: {error!s:.60}") from None
    if source.startswith((".", "/", "~")):
        raise InputError(f"{source}: no such file or folder (looked at {path})")
    return None


def _inside_package(source: str) -> Path:
    """`package:module/path` -> the path inside the installed package, without importing it."""
    module, _, inner = source.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"{source}: the package `{module}` is not installed; "
            f"`pip install {module.replace('_', '-')}` (the demo's own come with the extra [demo])"
        )
    root = Path(next(iter(spec.submodule_search_locations))).resolve()
    path = (root / inner).resolve()
    if not path.is_relative_to(root) or not path.exists():
        raise InputError(f"{source}: the package `{module}` holds no `{inner}`")
    return path


def model_folder(source: str, revision: str | None = None, base: Path = Path()) -> Path:
    """A folder with config.json, tokenizer and safetensors; a hub model is downloaded first.

    Raises InputError where the source is no model folder or the hub cannot be reached.
    """
    path = local_path(source, base) or _download(source, revision)
    if not (path / "config.json").is_file():
        raise InputError(
            f"{source}: no config.json in {path}; expected a Hugging Face model folder"
        )
    if not list(path.glob("*.safetensors")):
        raise InputError(
            f"{source}: no *.safetensors in {path}; only safetensors weights are read, never pickle"
        )
    return path


def _download(source: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model"]
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
    except HFValidationError:
        raise InputError(f"{source}: neither a folder nor a valid hub id") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = str(error).splitlines()[0]
        kind = HubError if may_pass(error) else InputError
        raise kind(f"{source}: no such folder, and the hub did not give it: {reason}") from None


def may_pass(error: Exception) -> bool:
    """Whether what the hub's library raised may be over a little later: no answer, or a server that
    has no time; not an answer, and not where HF_HUB_OFFLINE asks for none."""
    from huggingface_hub.constants import is_offline_mode
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if isinstance(error, HfHubHTTPError):
        status = getattr(error.response, "status_code", 500)
        return status >= 500 or status == 429
    lost = isinstance(error, LocalEntryNotFoundError | ConnectionError | TimeoutError)
    return lost and not is_offline_mode()
