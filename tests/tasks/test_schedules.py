"""Cron expressions are refused before anything starts, or stand for times."""

from datetime import UTC, datetime, timedelta

import pytest

from compress.errors import InputError
from tasks.schedules import cron_times


@pytest.mark.parametrize(
    ("cron", "word"),
    [
        ("0 2 * *", "4 fields"),
        ("*/5 * * * * *", "6 fields"),
        ("61 2 * * *", "no cron expression"),
        ("every night", "2 fields"),
        ("0 0 31 2 *", "never comes"),
        ("", "0 fields"),
    ],
)
def test_what_is_no_schedule_is_refused_with_an_example(cron, word):
    with pytest.raises(InputError, match=word) as error:
        cron_times(cron, None)
    assert f"`{cron}`" in str(error.value) and '"0 2 * * *"' in str(error.value)


def test_a_time_zone_that_is_not_known_is_refused():
    with pytest.raises(InputError, match="--timezone `Mars/Base`"):
        cron_times("0 2 * * *", "Mars/Base")


def test_times_are_those_of_the_time_zone():
    first, second = cron_times("30 2 * * *", "Asia/Kathmandu").next(2)
    assert (first.hour, first.minute) == (2, 30)
    assert first.utcoffset() == timedelta(hours=5, minutes=45)
    assert second - first == timedelta(days=1)
    assert timedelta() < first - datetime.now(UTC) <= timedelta(days=1)
