"""The task behind the stage `prepare`."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.outputs import write_json
from tasks.retrying import NETWORK
from tasks.workspace import opened


@task(name="prepare data", task_run_name="prepare data", cache_policy=NO_CACHE, **NETWORK)
def prepare(root: str) -> None:
    """Rows of text -> artifacts/data and metrics/prepare.json."""
    from compress import data
    from compress.atomic import new_folder

    workspace, params = opened(root)
    with new_folder(workspace.data, holds="data.json") as folder:
        facts = data.prepare(params, workspace.root, folder)
        (folder / "pretrain.parquet").touch()  # empty where there is no pretraining
    write_json(workspace.metrics("prepare"), {"rows": facts["rows"], "tokens": facts["tokens"]})
