"""Budgets of a sweep: workspaces of their own, all problems before any is made, one page."""

import csv

import pytest

from compress.errors import InputError, PlanError
from compress.params_yaml import load_params
from tasks.outputs import write_json
from tasks.sweep import members, outcome, ratios_of, write_sweep


def test_ratios_are_numbers_above_one():
    assert ratios_of("20, 12,12,16.5") == [12, 16.5, 20]
    for wrong in ("", "a,b", "1,2", "12,inf", "nan"):
        with pytest.raises(InputError, match="expected numbers above 1"):
            ratios_of(wrong)


def test_every_budget_has_a_workspace_and_the_params_file_stays(project):
    before = (project / "params.yaml").read_text()
    made = members(project / "params.yaml", [2, 2.2])
    assert [workspace.root for workspace in made] == [
        project / "runs" / "params-2x",
        project / "runs" / "params-2.2x",
    ]
    for workspace, ratio in zip(made, (2, 2.2), strict=True):
        params = load_params(workspace.params_file)
        assert params.quantize.budget.ratio == ratio
        assert (workspace.root / params.data.source).resolve() == project / "rows.csv"
    assert (project / "params.yaml").read_text() == before


def test_a_budget_that_nothing_fits_stops_all_of_them_before_they_begin(project):
    with pytest.raises(PlanError, match="bytes are too few"):
        members(project / "params.yaml", [2, 400])
    assert not (project / "runs").exists()


def test_the_page_has_every_budget(project):
    made = members(project / "params.yaml", [2, 2.2])
    for workspace, size, score in zip(made, (13000, 12000), (80.5, 79.25), strict=True):
        facts = {"bytes": size, "bytes_uncompressed": 26000, "score": score}
        facts |= {"score_uncompressed": 82.0, "metric": "accuracy"}
        write_json(workspace.metrics("evaluate"), facts)
    found = [outcome(w, r) for w, r in zip(made, (2.0, 2.2), strict=True)]
    page = write_sweep(project / "params.yaml", found)
    assert page == project / "runs" / "params-sweep.html"
    text = page.read_text()
    for word in ("<svg", "2.2x", "12,000", "79.25", "2.75", "uncompressed"):
        assert word in text
    assert page.read_bytes() == write_sweep(project / "params.yaml", found).read_bytes()
    with page.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["ratio"] for row in rows] == ["2", "2.2"]
    assert [row["drop"] for row in rows] == ["1.5", "2.75"]
