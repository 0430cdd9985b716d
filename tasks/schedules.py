"""Cron expressions: checked before anything starts, and the times that they stand for."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from compress.errors import InputError

if TYPE_CHECKING:
    from prefect.schedules import Schedule


@dataclass(frozen=True)
class CronTimes:
    """A cron expression that can be met, in an IANA time zone."""

    cron: str
    timezone: str

    def next(self, count: int) -> list[datetime]:
        """The next `count` times, in the time zone."""
        import asyncio

        from prefect.server.schemas.schedules import CronSchedule

        known = CronSchedule(cron=self.cron, timezone=self.timezone)
        return list(asyncio.run(known.get_dates(count)))

    def schedule(self) -> "Schedule":
        from prefect.schedules import Cron

        return Cron(self.cron, timezone=self.timezone)


def cron_times(cron: str, timezone: str | None) -> CronTimes:
    """Reads `--cron` and `--timezone`, which is that of the machine where it is not given.

    Raises InputError for what is no expression of five fields, what never comes (31 February), and
    for a time zone that is not known.
    """
    from pydantic import ValidationError
    from tzlocal import get_localzone_name

    times = CronTimes(cron, timezone or get_localzone_name() or "UTC")
    if not cron.startswith("@") and len(cron.split()) != 5:
        raise InputError(_message(cron, f"it has {len(cron.split())} fields"))
    try:
        times.next(1)
    except ValidationError as error:
        if "timezone" in error.errors()[0]["msg"]:
            raise InputError(
                f"--timezone `{timezone}`: not known; give a name such as Europe/Berlin"
            ) from None
        raise InputError(_message(cron, "it is no cron expression")) from None
    except ValueError:  # croniter: no date within years
        raise InputError(_message(cron, "that never comes")) from None
    return times


def _message(cron: str, what: str) -> str:
    return (
        f"--cron `{cron}`: {what}; expected five fields: minute hour day month weekday, such as "
        '"0 2 * * *" for every night at two'
    )
