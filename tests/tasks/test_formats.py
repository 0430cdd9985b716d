"""Numbers as people read them."""

from tasks.formats import cell, duration, size


def test_numbers_as_people_read_them():
    assert [size(b) for b in (999, 4_583_912, 90_861_000, 2.5e9)] == [
        "999 B", "4.58 MB", "90.9 MB", "2.50 GB",
    ]  # fmt: skip
    assert [duration(s) for s in (6.12, 59.96, 211.8, 4330)] == [
        "6.1 s", "1 min 00 s", "3 min 32 s", "1 h 12 min",
    ]  # fmt: skip
    assert [cell(v) for v in (256.0, 77824, None, float("nan"), "product")] == [
        "256", "77,824", "–", "–", "product",
    ]  # fmt: skip
