"""Names of flow runs that say what runs where."""

from pathlib import Path


def run_name() -> str:
    """`quantize my-project`: the flow and the folder of the workspace."""
    from prefect.runtime import flow_run

    root = Path(flow_run.get_parameters()["root"])
    return f"{flow_run.get_flow_name()} {root.name}"
