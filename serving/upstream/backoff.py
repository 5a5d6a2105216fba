"""How long to wait before a request is sent again.

As long as the provider asks for. If it does not say: exponential backoff with full jitter (Marc
Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015), a uniformly random part of
a limit that doubles, so that clients that failed together do not come back together.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

FIRST_S = 0.5
LIMIT_S = 8.0
# No request waits longer than this; its caller is told to come back instead.
MAX_WAIT_S = 20.0


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that `retry-after-ms` or `retry-after` ask for; None if they say nothing usable.

    `retry-after` is in seconds or a date (RFC 9110, 10.2.3). `now` is Unix time.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        date = parsedate_to_datetime(headers["retry-after"]).timestamp()
    except (KeyError, ValueError, OverflowError):
        return None
    return max(0.0, date - (time.time() if now is None else now))


def wait_s(attempt: int, asked_s: float | None, rng: random.Random) -> float | None:
    """Seconds to wait after attempt number `attempt` (from 0); None means to give up.

    A wait that the provider asks for is kept and a little is added, so that not all clients that
    were told the same come back at the same time.
    """
    if asked_s is None:
        return rng.uniform(0.0, min(LIMIT_S, FIRST_S * 2.0**attempt))
    if asked_s > MAX_WAIT_S:
        return None
    return asked_s + rng.uniform(0.0, FIRST_S * min(1.0, asked_s))
