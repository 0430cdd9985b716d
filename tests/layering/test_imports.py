"""Who may import whom, and what the command line may not import before it must."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "datasets", "prefect", "mlflow", "dvc", "pandas", "numpy"}


def test_contracts_of_pyproject_hold(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert lint_imports(cache_dir=None, no_cache=True) == 0


@pytest.mark.parametrize(
    ("library", "place"), [("mlflow", "tasks/tracking"), ("dvc", "tasks/versions")]
)
def test_only_one_place_imports(library, place):
    for package in ("compress", "tasks", "flows"):
        for file in (ROOT / package).rglob("*.py"):
            names = set()
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    names.add((node.module or "").partition(".")[0])
            allowed = str(file.relative_to(ROOT)).startswith(place)
            assert allowed or library not in names, f"{file} imports {library}"


@pytest.mark.parametrize("command", [[], ["run"], ["serve"], ["plan"], ["promote"], ["cache"]])
def test_help_is_quick_because_it_imports_nothing_heavy(command):
    code = (
        "import sys\n"
        "from flows.cli import app\n"
        f"app({[*command, '--help']!r}, standalone_mode=False)\n"
        f"print('HEAVY', sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.perf_counter() - started < 5  # a fraction of a second on an idle machine
    assert "HEAVY []" in done.stdout
    assert "Usage" in done.stdout
