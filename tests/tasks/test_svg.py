"""Figures as SVG inside a page: well-formed, the same every time, in the page's colours."""

import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.svg import SERIES, VARIABLES, canvas, drawing, to_svg


def picture(title: str = "title", label: str = "label") -> str:
    with drawing():
        figure, axes = canvas(200, 100)
        axes[0, 0].plot([1, 2, 3], color=SERIES[0], marker="o")
        axes[0, 0].set_title(title)
        return str(to_svg(figure, label))


def test_equal_figures_are_equal_bytes():
    assert picture() == picture()


def test_every_colour_is_a_variable_of_the_page():
    svg = picture()
    assert "var(--series-0)" in svg and "var(--muted)" in svg
    assert not re.search(r"#[0-9a-f]{6}\b(?!\))", svg)
    assert len(set(VARIABLES.values())) == len(VARIABLES)


def test_nothing_points_outside():
    assert "http" not in picture() and "<style" not in picture()


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1))
def test_any_name_is_plain_text(name):
    root = ET.fromstring(picture(title=name, label=name))
    assert root.attrib["aria-label"] == name
    texts = {(node.text or "").strip() for node in root.iter("text")}
    assert " ".join(name.split()) in {" ".join(text.split()) for text in texts} | {""}


def test_settings_do_not_leak():
    before = dict(mpl.rcParams)
    picture()
    assert dict(mpl.rcParams) == before
