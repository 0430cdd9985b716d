"""Training in several processes of this machine, a GPU each, started by accelerate's launcher.

A training is handed over as a JSON file, and its result comes back as one: each process runs the
same function, the Trainer keeps them together, and the first one alone writes.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch

from compress import progress
from compress.atomic import new_file
from compress.config import Params
from compress.errors import InputError, ShrinkflowError

TERMINAL = "SHRINKFLOW_TERMINAL"  # where the first process shows its progress


def launched(function: Callable[..., Any], params: Params, **arguments: Any) -> Any:
    """`function(params, **arguments)` in `compute.processes` processes; its result as JSON has it.

    `function` is one of a module of `compress`; arguments are paths, texts, and mappings of them;
    `work_dir` is among them. With one process it is called right here. Raises what the function
    raises, as InputError or ShrinkflowError.
    """
    processes = params.compute.processes
    if processes == 1:
        return _as_json(function(params, **arguments))
    folder = Path(arguments["work_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    job, result, log = (folder / f"launch.{end}" for end in ("json", "result.json", "log"))
    result.unlink(missing_ok=True)
    _write(
        job,
        {
            "function": [function.__module__, function.__name__],
            "params": params.model_dump(mode="json"),
            "arguments": _plain(arguments),
            "result": str(result),
        },
    )
    environment = dict(os.environ)
    if os.isatty(2):
        environment[TERMINAL] = os.ttyname(2)
    with log.open("wb") as output:
        done = subprocess.run(
            [*launcher(processes), "-m", "compress.launch", str(job)],
            env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False,
        )  # fmt: skip
    found = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else {}
    if "error" in found:
        raise (InputError if found["input"] else ShrinkflowError)(found["error"])
    if done.returncode or "value" not in found:
        raise ShrinkflowError(f"the training processes ended with status {done.returncode}; {log}")
    return found["value"]


def launcher(processes: int) -> list[str]:
    """accelerate's launcher for GPUs; for processors, which it does not spread over, torch's own
    (accelerate's calls the same)."""
    python = [sys.executable, "-m"]
    if torch.cuda.is_available():
        options = ["--multi_gpu", "--num_machines", "1", "--mixed_precision", "no"]
        options += ["--dynamo_backend", "no", "--num_processes", str(processes)]
        return [*python, "accelerate.commands.launch", *options]
    return [*python, "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]


def _as_json(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return {"path": str(value.absolute())}
    if isinstance(value, Mapping):
        return {"items": {name: _plain(item) for name, item in value.items()}}
    return value


def _restored(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "path" in value:
        return Path(value["path"])
    return {name: _restored(item) for name, item in value["items"].items()}


def _write(path: Path, values: Mapping[str, Any]) -> None:
    with new_file(path) as temporary:
        temporary.write_text(json.dumps(values), encoding="utf-8")


def main() -> None:
    """`python -m compress.launch JOB`: one of the processes."""
    import importlib

    from compress.trainer import is_first

    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if is_first() and TERMINAL in os.environ:
        progress.console.file = open(os.environ[TERMINAL], "w")  # noqa: SIM115 (until the end)
    module, name = job["function"]
    function = getattr(importlib.import_module(module), name)
    try:
        value = function(Params.model_validate(job["params"]), **_restored(job["arguments"]))
        if is_first():
            _write(Path(job["result"]), {"value": _as_json(value)})
    except ShrinkflowError as error:
        found = {"error": str(error), "input": isinstance(error, InputError)}
        _write(Path(job["result"]), found)
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
