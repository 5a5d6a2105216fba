"""A rate by the minute: the generic cell rate algorithm (ITU-T I.371, Annex A, virtual scheduling).

All of its state is one time, the theoretical arrival time (TAT): when a bucket that is filled by
what has passed, and drains at the limit's rate, will be empty. The bucket holds a minute's worth,
so a caller that was silent may send that much at once. With n units for each arrival it is a token
bucket; requests are units, and so are tokens. Times are whole nanoseconds since 1970.
"""

from __future__ import annotations

SECOND = 1_000_000_000
MINUTE = 60 * SECOND


def after(tat: int, now: int, units: int, limit: int) -> int:
    """The TAT after so many units, whether they fit or not. A negative number gives units back."""
    if units < 0:
        return tat - -units * MINUTE // limit if limit else tat
    return max(tat, now) + (-(-units * MINUTE // limit) if limit else 0)


def wait(tat: int, now: int, units: int, limit: int) -> int:
    """How long so many units have to wait, in nanoseconds; 0 or less: they fit now."""
    return after(tat, now, units, limit) - now - MINUTE if limit else MINUTE


def room(tat: int, now: int, limit: int) -> int:
    """How many units fit now; negative if more has passed than the rate allows."""
    return (MINUTE - max(0, tat - now)) * limit // MINUTE


def refilled(tat: int, now: int) -> float:
    """In how many seconds the whole bucket is free again."""
    return max(0, tat - now) / SECOND
