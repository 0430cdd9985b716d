"""The script runs and its table has what it says; times are not tested."""

import json

from benchmarks import step_time


def test_every_kind_is_timed_against_plain_training(tiny_model, tmp_path, capsys):
    given = ["--steps", "5", "--rounds", "2", "--model", str(tiny_model), "--out", str(tmp_path)]
    assert step_time.main(given) == 0
    found = json.loads((tmp_path / "step_time.json").read_text())
    assert list(found["seconds"]) == list(step_time.KINDS)
    assert found["ratios"][step_time.PLAIN] == 1.0
    printed = capsys.readouterr().out
    for kind in step_time.KINDS:
        assert found["seconds"][kind] > 0 and f"| {kind} |" in printed
