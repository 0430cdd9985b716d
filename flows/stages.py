"""`python -m flows.stages NAME`: one stage, in the workspace that is the working directory.

This is what dvc.yaml calls. It runs the same flow as the pipeline does.
"""

import sys
from pathlib import Path

from compress.errors import InputError
from flows.session import failures, flow_session
from tasks.workspace import STAGES, opened


def main() -> None:
    """Runs the stage that the command line names."""
    with failures():
        name = sys.argv[1] if len(sys.argv) == 2 else ""
        if name not in STAGES:
            raise InputError(f"python -m flows.stages NAME; NAME is one of {', '.join(STAGES)}")
        workspace, params = opened(Path.cwd())
        with flow_session(workspace):
            from flows.pipeline import run_alone

            run_alone(workspace, params, name)


if __name__ == "__main__":
    main()
