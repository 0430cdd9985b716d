"""Nested results as names and numbers."""

from hypothesis import given
from hypothesis import strategies as st

from tasks.tracking.values import curve, flat, scalars

names = st.text("abcd", min_size=1, max_size=3)
plain = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | names
trees = st.recursive(plain, lambda inner: st.dictionaries(names, inner, max_size=4), max_leaves=8)


@given(st.dictionaries(names, trees))
def test_flat_names_lead_back_to_every_value(tree):
    for name, value in flat(tree):
        node = tree
        for part in name.split("."):
            node = node[part]
        assert node == value


@given(st.dictionaries(names, trees))
def test_every_number_and_nothing_else_is_a_metric(tree):
    numbers = {n: v for n, v in flat(tree) if type(v) in (int, float)}
    assert {name: value for name, value, _ in scalars(tree)} == numbers


def test_items_of_a_list_go_by_their_name():
    tree = {"groups": [{"name": "ffn", "size": 8}, {"size": 4}], "text": ["a"]}
    assert dict(flat(tree)) == {
        "groups.ffn.name": "ffn",
        "groups.ffn.size": 8,
        "groups.1.size": 4,
        "text": ["a"],
    }


def test_no_curve_no_metrics():
    assert curve(None) == []
