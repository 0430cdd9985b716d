"""The picture of score against size."""

import re

import pytest

from benchmarks.glue_cells import Row, Spec
from benchmarks.glue_plot import draw
from benchmarks.glue_report import Line


def line(score, megabytes):
    return Line(
        scores={0: score, 1: score + 1}, drops=[], changes=[], bytes=megabytes * 1e6, ratio=1.0,
        minutes=1.0, model=90.0, distortion=None, empty=None, before=None,
    )  # fmt: skip


@pytest.fixture
def spec():
    sized = [x for name in ("product", "uniform") for x in Row(name=name, ratios=[8, 16]).sized]
    rows = [
        Row(name="uncompressed", label="whole"), *sized, Row(name="alone"), Row(name="gone"),
        Row(name="part", ablation=True), Row(name="other", ablation=True),
    ]  # fmt: skip
    return Spec(base={}, tasks=[{"name": "t", "label": "Task", "set": {}}], rows=rows)


def test_sizes_of_a_method_are_one_curve_and_what_is_missing_is_left_out(spec, tmp_path):
    there = [row.name for row in spec.rows if row.name not in ("gone", "uniform-16x")]
    found = {("t", name): line(80 + i, 4 + i) for i, name in enumerate(there)}
    first = draw(spec, found, tmp_path / "a.svg").read_text()
    labels = set(re.findall(r"<!-- ([a-z][\w ]+) -->", first))
    assert labels >= {"whole", "product", "uniform", "alone", "parts on and off"}
    assert not labels & {"gone", "product, 8x", "part"}
    assert draw(spec, found, tmp_path / "b.svg").read_text() == first
