"""Two versions side by side: what the table says, and a page that needs nothing else."""

import math
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest

from tasks.comparison import Comparison, Version, write_page
from tasks.gate import Candidate
from tasks.workspace import Workspace


def version(number, score=85.0, layers=None, params=None, **tags):
    judged = Candidate(score, 86 - score, 20.0, 1000 * number, "accuracy", "b" * 64, str(number))
    held = ("champion",) if number == 1 else ()
    return Version("tiny", judged, held, 0.0, tags, params or {}, layers)


def table(**distortion):
    return pd.DataFrame({"name": distortion.keys(), "relative_distortion": distortion.values()})


def facts(comparison):
    return {row.name: row for row in comparison.facts()}


def test_differences_are_second_minus_first():
    found = facts(Comparison(version(1, 85.0, gate="passed"), version(2, 84.5, gate="passed")))
    assert found["score"][1:] == ("85.00", "84.50", "-0.50")
    assert found["drop, points"].difference == "+0.50"
    assert found["bytes"].difference == "+1,000"
    assert found["held-out rows"].difference == found["gate"].difference == "same"
    assert found["registered"].first == "1970-01-01 00:00 UTC"


@pytest.mark.parametrize("other", [{"data_hash": "c" * 64}, {"metric": "f1"}])
def test_scores_of_other_rows_or_metrics_are_not_subtracted(other):
    first, second = version(1), version(2, 99.0)
    second = replace(second, judged=replace(second.judged, **other))
    found = facts(Comparison(first, second))
    assert found["score"].difference == "not comparable"
    assert "differs" in {found["metric"].difference, found["held-out rows"].difference}


def test_parameters_that_differ_and_no_others():
    params = {"seed": "0", "quantize.block_size": "8", "tracking.uri": "a", "old": "1"}
    other = {"seed": "0", "quantize.block_size": "4", "tracking.uri": "b", "new": "2"}
    found = Comparison(version(1, params=params), version(2, params=other)).parameters()
    assert [row[:3] for row in found] == [
        ("quantize.block_size", "8", "4"),
        ("old", "1", "–"),
        ("new", "–", "2"),
    ]


def test_layers_are_matched_by_name():
    comparison = Comparison(
        version(1, layers=table(a=0.1, b=0.2, c=0.3)), version(2, layers=table(a=0.2, c=0.1, d=0.4))
    )
    layers = comparison.layers()
    assert set(layers["name"]) == set("abcd")
    found = layers.set_index("name")
    assert found.loc["c", "difference"] == pytest.approx(-0.2)
    assert math.isnan(found.loc["b", "second"]) and math.isnan(found.loc["d", "first"])
    mean, first, second = comparison.layer_rows(2)
    assert mean.name == "mean of 4 layers" and mean.first == "0.2000"
    assert first == ("c", "0.3000", "0.1000", "-0.2000") and second.name == "a"


class Links(HTMLParser):
    """What a page would have to load."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [v for k, v in attributes if k in ("src", "href") and not v.startswith("#")]
        self.found += [tag] if tag in ("script", "link", "img") else []


@pytest.mark.parametrize("layers", [0, 3, 200])
def test_page_is_one_file(tmp_path, layers):
    names = {f"encoder.layer.{i}.<dense>": 0.1 for i in range(layers)}
    tables = [table(**names) if names else None] * 2
    comparison = Comparison(
        version(1, layers=tables[0], reason="<b>no markup</b>", params={"seed": "0"}),
        version(2, layers=tables[1], params={"seed": "1"}),
    )
    path = write_page(Workspace(tmp_path), comparison)
    assert path.name == "1-2.html"
    text = path.read_text()
    assert text.count("<svg") == (1 if layers else 0) and "seed" in text
    assert "&lt;b&gt;no markup" in text
    assert ("2.&lt;dense&gt;" in text) == (layers == 3)  # too many layers are not named
    links = Links()
    links.feed(text)
    assert links.found == []
    before = text
    assert write_page(Workspace(tmp_path), comparison).read_text() == before
