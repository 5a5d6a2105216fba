"""The periods of budgets: days and months, by UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from serving.catalogue.rate import SECOND


class Period(NamedTuple):
    """When a period begins and ends, in nanoseconds since 1970. The end is the next one's
    beginning."""

    begins: int
    ends: int


def period_of(limit: str, now: int) -> Period:
    """The period of a budget, `..._per_day` or `..._per_month`, in which `now` lies."""
    at = datetime.fromtimestamp(now // SECOND, UTC)
    begins = at.replace(hour=0, minute=0, second=0, microsecond=0)
    if limit.endswith("_per_day"):
        ends = begins + timedelta(days=1)
    else:
        begins = begins.replace(day=1)
        ends = (begins + timedelta(days=32)).replace(day=1)
    return Period(int(begins.timestamp()) * SECOND, int(ends.timestamp()) * SECOND)
