"""Names of flow runs that say what runs where."""

from pathlib import Path


def stage_name() -> str:
    """`quantize my-project`: the stage and the folder of the workspace."""
    from prefect.runtime import flow_run

    root = Path(flow_run.get_parameters()["root"])
    return f"{flow_run.get_flow_name()} {root.name}"


def pipeline_name() -> str:
    """`nightly my-project`: the deployment and the workspace; `run my-project` without one."""
    from prefect.runtime import deployment, flow_run

    from tasks.workspace import PARAMS_FILE

    params = Path(flow_run.get_parameters()["params"]).absolute()
    workspace = params.parent.name if params.name == PARAMS_FILE else params.stem
    name = deployment.get_name() or "run"
    return f"{name.partition('@')[0]} {workspace}"
