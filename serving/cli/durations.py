"""How times are written in a command: 90d, 12h, or a date."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

_DURATION = re.compile(r"(\d{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds_of(text: str) -> int:
    """The seconds of `90d`, `12h`, `30m` or `45s`. Raises `BadParameter`."""
    if (found := _DURATION.fullmatch(text)) is None:
        raise click.BadParameter("write it as 90d, 12h, 30m or 45s")
    return int(found[1]) * _SECONDS[found[2]]


def read_duration(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    return None if value is None else seconds_of(value)


def read_moment(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A time from now, or a date, as the API has it."""
    if value is None:
        return None
    if _DURATION.fullmatch(value):
        try:
            return (datetime.now(UTC) + timedelta(seconds=seconds_of(value))).isoformat()
        except OverflowError:
            raise click.BadParameter("that is too far away") from None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter("write it as 90d, 12h or 2027-01-31T00:00:00Z") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()
