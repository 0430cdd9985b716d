"""Reading params.yaml: plain YAML of a bounded extent, overrides, problems in words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from compress.config import Params
from compress.errors import InputError
from compress.redaction import without_password

MAX_FILE = 1 << 18  # bytes of a params file
MAX_VALUES, MAX_DEPTH, MAX_INTEGER = 20_000, 32, 1 << 63  # aliases counted as what they stand for


def load_params(path: Path | str, overrides: Sequence[str] = ()) -> Params:
    """Reads a params file and applies `section.key=value` overrides (values are YAML).

    Raises InputError that lists every key that is unknown or does not fit, with its place.
    """
    path = Path(path)
    try:
        raw = _parse(_text(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a file with --params") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise InputError(
            f"{path}: expected sections (model:, data:, ...), found {type(raw).__name__}"
        )
    for override in overrides:
        apply_override(raw, override)
    _check_extent(raw, path)
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{path}: {describe(error)}") from None


def _text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError("no such file")
    if path.stat().st_size > MAX_FILE:
        raise OSError(f"larger than {MAX_FILE // 1024} kB")
    return path.read_text(encoding="utf-8")


def _parse(text: str) -> Any:
    """YAML of plain values, without Python's own tags. Raises ValueError for anything else."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (ValueError, OverflowError, TypeError, AttributeError) as error:
        # A date that is none, a number of too many digits, a tag on the wrong kind of value.
        raise ValueError(f"a value cannot be read ({error})") from None


def _check_extent(raw: dict[Any, Any], path: Path) -> None:
    """Raises InputError for what would take for ever: aliases of aliases, loops, huge numbers."""
    waiting: list[tuple[Any, int]] = [(raw, 1)]
    count = 0
    while waiting:
        node, depth = waiting.pop()
        inner = [*node.keys(), *node.values()] if isinstance(node, dict) else node
        if isinstance(node, dict | list | tuple | set):
            count += len(inner)
            waiting.extend((value, depth + 1) for value in inner)
        elif isinstance(node, int) and abs(node) > MAX_INTEGER:
            raise InputError(f"{path}: a number of {node.bit_length()} bits is too large")
        if count > MAX_VALUES or depth > MAX_DEPTH:
            raise InputError(
                f"{path}: more than {MAX_VALUES:,} values, or nested more than {MAX_DEPTH} deep"
            )


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Sets `a.b=value` in the nested mapping `raw`; the keys are checked when it is validated."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"-S {override}: expected section.key=value")
    *parents, last = key.strip().split(".")
    node: Any = raw
    for parent in parents:
        node = _child(node, parent, override)
    try:
        value = _parse(text)
    except ValueError:
        raise InputError(f"-S {override}: the value is not valid YAML") from None
    if isinstance(node, list):
        node[_index(node, last, override)] = value
    else:
        node[last] = value


def _child(node: Any, key: str, override: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, key, override)]
    child = node.setdefault(key, {})
    if child is None:  # a section that may be null, such as quantize.budget
        child = node[key] = {}
    if not isinstance(child, dict | list):
        raise InputError(f"-S {override}: `{key}` is a value, not a section")
    return child


def _index(node: list[Any], key: str, override: str) -> int:
    """A list item by its position or, for groups, by its name."""
    for i, item in enumerate(node):
        if key == str(i) or (isinstance(item, dict) and item.get("name") == key):
            return i
    raise InputError(f"-S {override}: no item `{key}`; give its position or its name")


def describe(error: ValidationError) -> str:
    """Every problem of a validation on a line of its own: where, what, and what was given."""
    lines = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"]) or "params"
        if problem["type"] == "extra_forbidden":
            lines.append(f"{place}: unknown key")
        else:
            given = without_password(repr(problem["input"]))
            lines.append(f"{place}: {problem['msg']} (got {given:.60})")
    return lines[0] if len(lines) == 1 else "\n" + "\n".join(f"  - {line}" for line in lines)
