"""The command line. Everything heavy is imported by the command that needs it."""

import time
from pathlib import Path
from typing import Annotated, cast

import typer

from flows import cache

app = typer.Typer(
    name="shrinkflow",
    help="Make trained networks 10 to 40 times smaller and keep their accuracy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cache.app, name="cache")
ParamsFile = Annotated[
    Path,
    typer.Option(
        "--params", metavar="FILE", help="Any other name than params.yaml runs in runs/NAME."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("-S", "--set", metavar="KEY=VALUE", help="-S quantize.codebook_size=128; repeat."),
]
Version = Annotated[str, typer.Argument(help="A version by its number or alias.")]
Folder = Annotated[Path, typer.Argument(help="A model folder, such as artifacts/compressed.")]
DEFAULT = Path("params.yaml")


@app.command()
def plan(params: ParamsFile = DEFAULT, overrides: Overrides = None) -> None:
    """Show what would be compressed, into how many bytes, and every problem, before any work.

    With a size budget the layers are measured, and a page shows predicted damage by size."""
    from flows.session import failures

    with failures():
        from compress.errors import PlanError
        from compress.params_yaml import load_params
        from flows.layer_tables import show_plan
        from tasks.planning import plan_of

        values, base = load_params(params, overrides or ()), params.absolute().parent
        found, problems = plan_of(base, values)
        if values.quantize.budget is None or problems:
            show_plan(found)
        else:
            from flows.layer_tables import show_budget
            from tasks.budget_plan import budget_plan
            from tasks.workspace import workspace_of

            bought = budget_plan(workspace_of(params), base, values)
            show_plan(bought.plan)
            show_budget(bought)
        if problems:
            raise PlanError(problems)


@app.command()
def run(params: ParamsFile = DEFAULT, overrides: Overrides = None) -> None:
    """Compress: every stage that is not up to date, to a registered model. -S changes the file."""
    from flows.session import failures, flow_session

    with failures():
        from compress.params_yaml import load_params
        from flows.console import note
        from flows.results import show_next_steps, show_summary
        from tasks.lock import workspace_lock
        from tasks.params_file import set_up
        from tasks.summary import summarize
        from tasks.workspace import workspace_of

        started = time.perf_counter()
        load_params(params, overrides or ())  # nothing is made for what is not valid
        # Refused at once rather than when everything is up, and nothing written for another's run.
        with workspace_lock(workspace_of(params)):
            workspace, notes = set_up(params, overrides or ())
        for text in notes:
            note(text)
        with flow_session(workspace):
            from flows.pipeline import pipeline

            done = cast(list[str], pipeline(str(workspace.params_file)))
        show_summary(summarize(workspace), done, time.perf_counter() - started)
        show_next_steps(workspace, load_params(workspace.params_file))


@app.command()
def sweep(
    ratios: Annotated[str, typer.Option(help="How many times smaller, one run each.")],
    params: ParamsFile = DEFAULT,
    overrides: Overrides = None,
) -> None:
    """Run several size budgets, each in runs/NAME-12x, and draw score against size."""
    from flows.session import failures, flow_session

    with failures():
        from flows.console import note
        from flows.results import show_sweep
        from tasks.sweep import members, outcome, ratios_of, write_sweep
        from tasks.workspace import workspace_of

        wanted = ratios_of(ratios)
        workspaces = members(params, wanted, overrides or ())
        with flow_session(workspace_of(params)):
            from flows.pipeline import pipeline

            for workspace in workspaces:
                note(f"budget {workspace.root.name}")
                pipeline(str(workspace.params_file))
        found = [outcome(w, ratio) for w, ratio in zip(workspaces, wanted, strict=True)]
        show_sweep(found, write_sweep(params, found))


@app.command()
def serve(
    cron: Annotated[str, typer.Option(help='When to run: "0 2 * * *" is every night at two.')],
    params: ParamsFile = DEFAULT,
    timezone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Europe/Berlin; else the machine's own.")
    ] = None,
) -> None:
    """Run on a schedule, without a server of your own, for as long as this command runs."""
    from flows.session import failures, flow_session, keep_ctrl_c
    from tasks.server import prefect_home

    keep_ctrl_c()
    with failures():
        from compress.params_yaml import load_params
        from flows.console import show_schedule
        from tasks.workspace import workspace_of

        load_params(params)  # what is not valid is refused now, not at night
        workspace = workspace_of(params)
        with prefect_home(workspace.prefect):
            from tasks.schedules import cron_times

            times = cron_times(cron, timezone)
            with flow_session(workspace, stays=True) as pages:
                from flows.serving import serve as until_stopped

                show_schedule(params, times, pages)
                until_stopped(params.absolute(), times)


@app.command()
def evaluate(folder: Folder, params: ParamsFile = DEFAULT, overrides: Overrides = None) -> None:
    """Score a model folder, compressed or not, on the held-out rows of a params file."""
    from flows.session import failures

    with failures():
        from compress.params_yaml import load_params
        from flows.results import show_scores
        from tasks.planning import evaluate_folder

        values = load_params(params, overrides or ())
        show_scores(folder, evaluate_folder(params.absolute().parent, values, folder))


@app.command()
def inspect(folder: Folder) -> None:
    """Show what a compressed model is made of; checks that its files are whole."""
    from flows.session import failures

    with failures():
        from flows.layer_tables import show_model
        from tasks.planning import inspect_folder

        show_model(folder, inspect_folder(folder))


@app.command()
def promote(version: Version = "challenger", params: ParamsFile = DEFAULT) -> None:
    """Make a registered version champion, whatever the gate said; the champion becomes previous."""
    from flows.session import failures

    with failures():
        from compress.params_yaml import load_params
        from flows.console import output
        from tasks.tracking.by_hand import promote
        from tasks.workspace import workspace_of

        output.print(promote(workspace_of(params), load_params(params), version), markup=False)


@app.command()
def rollback(params: ParamsFile = DEFAULT) -> None:
    """Make the previous champion champion again; no run promotes the present one any more."""
    from flows.session import failures

    with failures():
        from compress.params_yaml import load_params
        from flows.console import output
        from tasks.tracking.by_hand import rollback
        from tasks.workspace import workspace_of

        output.print(rollback(workspace_of(params), load_params(params)), markup=False)


@app.command()
def compare(first: Version, second: Version, params: ParamsFile = DEFAULT) -> None:
    """Show two registered versions side by side, and write a page with their layers."""
    from flows.session import failures

    with failures():
        from compress.params_yaml import load_params
        from flows.comparison import show_comparison
        from tasks.comparison import compare, write_page
        from tasks.workspace import workspace_of

        workspace = workspace_of(params)
        found = compare(workspace, load_params(params), first, second)
        show_comparison(found, write_page(workspace, found))


@app.command()
def stream(
    source: Annotated[str, typer.Argument(help="A model folder with safetensors, or a hub id.")],
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    params: Annotated[
        Path | None,
        typer.Option("--params", metavar="FILE", help="Its section quantize; else every layer."),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Quantize a model larger than memory, tensor by tensor, without training."""
    from flows.session import failures

    with failures():
        from flows.console import note
        from flows.results import show_stream
        from tasks import streaming
        from tasks.workspace import Workspace

        started = time.perf_counter()
        home = params.absolute().parent if params else Path.cwd()
        settings, seed = streaming.stream_settings(params, overrides or ())
        layers = Workspace(home).layers
        folder = streaming.source_folder(source)
        done = streaming.stream(folder, out, settings, seed=seed, layers=layers)
        show_stream(out, done, time.perf_counter() - started)
        note(f"finished layers are kept in {layers}")
