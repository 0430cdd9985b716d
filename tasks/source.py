"""Which code a result depends on, and a version of it that comments do not change."""

import ast
import hashlib
import importlib.util
import threading
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from compress.errors import ShrinkflowError

ROOT = Path(__file__).resolve().parent.parent
# Mapped tasks ask in threads; Python 3.11 fails where two of them parse (python/cpython#106905).
_PARSER = threading.Lock()
# Messages, progress and copying of files: none of it can change a result.
NEUTRAL = frozenset({"compress.errors", "compress.progress", "compress.atomic"})


@cache
def modules(entry: str) -> tuple[str, ...]:
    """`entry` and every module of its package that it imports, directly or not, sorted.

    `package.*` starts with every module of a package: its plug-ins, which nothing imports by name.
    Imports are read from the source, also those inside functions; nothing is imported.
    """
    found: set[str] = set()
    waiting = [entry]
    if entry.endswith(".*"):
        package = entry[:-2]
        files = source_file(package).parent.glob("*.py")
        waiting = [package, *(f"{package}.{f.stem}" for f in files if f.stem != "__init__")]
    while waiting:
        name = waiting.pop()
        if name not in found and name not in NEUTRAL:
            found.add(name)
            waiting.extend(_imports(name))
    return tuple(sorted(found))


def code_version(entries: Iterable[str], *, without: Iterable[str] = ()) -> str:
    """SHA-256 over the code of `entries` and all they import, less comments and docstrings.

    `without`: modules, or packages with all in them, that count for nothing. A process sees one
    version of the code, that of the first call, as it runs one version.
    """
    names = {name for entry in entries for name in modules(entry)}
    for out in without:
        names = {name for name in names if name != out and not name.startswith(f"{out}.")}
    text = "\n".join(f"# {name}\n{_first_seen(name)}" for name in sorted(names))
    return hashlib.sha256(text.encode()).hexdigest()


def check_unchanged(entries: Iterable[str]) -> None:
    """Raises ShrinkflowError where code has been edited since this process took its version.

    Called once the code is imported: what runs is then what the version says.
    """
    for name in sorted({name for entry in entries for name in modules(entry)}):
        if _normal_code(source_file(name)) != _first_seen(name):
            raise ShrinkflowError(
                f"{source_file(name)} was changed while the run was going on; start it again "
                "(what is finished is kept)"
            )


def forget() -> None:
    """Looks at the files anew, as a new process would."""
    for function in (modules, source_file, _imports, _first_seen, _read):
        function.cache_clear()


@cache
def source_file(name: str) -> Path:
    """The file of a module of this project, found without importing it."""
    path = ROOT.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _imports(name: str) -> set[str]:
    """Modules of the same top-level package that the module `name` imports."""
    file = source_file(name)
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    top = name.partition(".")[0]
    imported = _read(file, file.stat().st_mtime_ns).imported
    found = {importlib.util.resolve_name(m, package) for m in imported}
    inside = {m for m in found if m.partition(".")[0] == top and source_file(m).is_file()}
    return inside - {top}


@cache
def _first_seen(name: str) -> str:
    """The code of a module when this process first asked for its version."""
    return _normal_code(source_file(name))


def _normal_code(file: Path) -> str:
    """The file's code as the parser sees it: no comments, no docstrings, no layout."""
    return _read(file, file.stat().st_mtime_ns).code


class _Source(NamedTuple):
    imported: tuple[str, ...]  # modules, or names in them; relative ones with their dots
    code: str


@cache
def _read(file: Path, mtime: int) -> _Source:
    """Parsed once for both: that is most of what a version costs."""
    tree = _tree(file)
    imported: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            inside = f"{base}." if node.module else base
            imported += [base, *(f"{inside}{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [n for n in node.body if not _is_docstring(n)] or [ast.Pass()]
    return _Source(tuple(imported), ast.unparse(ast.fix_missing_locations(tree)))


def _is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _tree(file: Path) -> ast.Module:
    text = file.read_text(encoding="utf-8")
    with _PARSER:
        return ast.parse(text, filename=str(file))
