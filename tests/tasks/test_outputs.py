"""Metrics, tables and timings."""

import csv
import json

import pytest

from tasks.layer_tables import perplexity, totals
from tasks.outputs import read_json, timed, write_json, write_table
from tasks.workspace import Workspace


def test_json_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "a" / "b.json"
    write_json(path, {"x": 1.5})
    with pytest.raises(ValueError):
        write_json(path, {"x": float("nan")})
    assert read_json(path) == {"x": 1.5}
    assert [p.name for p in path.parent.iterdir()] == ["b.json"]
    assert read_json(tmp_path / "missing.json") == {}


def test_tables_have_a_header_even_without_rows(tmp_path):
    write_table(tmp_path / "none.csv", [], ("step", "loss"))
    assert (tmp_path / "none.csv").read_text() == "step,loss\n"
    write_table(tmp_path / "some.csv", [{"loss": 1 / 3}, {"step": 2, "more": "a,b"}], ("step",))
    rows = list(csv.DictReader((tmp_path / "some.csv").open()))
    assert rows == [
        {"step": "", "loss": "0.3333333333", "more": ""},
        {"step": "2", "loss": "", "more": "a,b"},
    ]


def test_timings_are_no_output_and_only_of_what_was_finished(tmp_path):
    workspace = Workspace(tmp_path)
    with pytest.raises(RuntimeError), timed(workspace, "prepare"):
        raise RuntimeError
    assert not workspace.timings("prepare").exists()
    with timed(workspace, "prepare") as more:
        more["layers"] = {"a": 1.0}
    facts = json.loads(workspace.timings("prepare").read_text())
    assert facts["end"] - facts["start"] == pytest.approx(facts["seconds"], abs=1e-3)
    assert facts["peak_memory"] > 1e6 and facts["layers"] == {"a": 1.0}


def test_perplexity_counts_the_codes_in_even_use():
    assert perplexity([5, 5, 5, 5]) == pytest.approx(4)
    assert perplexity([9, 0, 0]) == pytest.approx(1)


def test_totals_weigh_layers_by_their_weights():
    rows = [
        {"weights": 100, "bytes": 10, "relative_distortion": 0.1, "dead": 1},
        {"weights": 300, "bytes": 20, "relative_distortion": 0.5, "dead": 2},
    ]
    found = totals(rows)
    assert found["relative_distortion"] == pytest.approx(0.4)
    assert found["bits_per_weight"] == pytest.approx(8 * 30 / 400)
    assert found["dead"] == 3 and "empty_initial" not in found
