"""`plan` with a budget: what it buys, weighed by the data where there are some, with a picture."""

import pytest

from compress.config import BudgetConfig
from compress.params_yaml import load_params
from tasks.budget_plan import budget_plan
from tasks.workspace import Workspace


@pytest.fixture
def params(project):
    found = load_params(project / "params.yaml")
    budget = {"budget": BudgetConfig(ratio=2)}
    return found.model_copy(update={"quantize": found.quantize.model_copy(update=budget)})


def test_it_shows_what_the_budget_buys_and_measures_once(project, params):
    workspace = Workspace(project)
    bought = budget_plan(workspace, project, params)
    limit = bought.plan.dense_bytes // 2
    assert bought.plan.problems == ()
    assert bought.plan.total_bytes == bought.allocation.bytes <= limit == bought.allocation.limit
    shown = {row.name: row.bytes for row in bought.plan.layers}
    assert shown == {layer.name: layer.bytes for layer in bought.allocation.layers}
    assert "source encoder" in bought.weighed
    text = bought.page.read_text()
    for word in ("<svg", "predicted damage", *shown):
        assert word in text

    measured = {f: f.stat().st_mtime_ns for f in workspace.layers.glob("*/*.json")}
    assert len(measured) >= len(shown)
    again = budget_plan(workspace, project, params)
    assert again.allocation == bought.allocation
    curves = [f for f, at in measured.items() if f.stat().st_mtime_ns == at]
    assert len(curves) == len(measured)


def test_without_rows_every_relative_error_counts_alike_and_it_says_so(project, params):
    (project / "rows.csv").unlink()
    bought = budget_plan(Workspace(project), project, params)
    assert "equal relative errors" in bought.weighed and "rows.csv" in bought.weighed
    assert bought.plan.total_bytes <= bought.allocation.limit
