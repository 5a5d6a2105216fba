"""Limits as callers read them: in the sentences of refusals, and in headers."""

from __future__ import annotations

from collections.abc import Iterable

from serving.accounts.quota.meter import Meter, Unit
from serving.accounts.quota.shelf import Subject
from serving.api.excerpt import excerpt
from serving.catalogue.price import shown

Headers = list[tuple[bytes, bytes]]


def limit_words(subject: Subject, meter: Meter) -> str:
    """Which limit, and its value: `requests_per_minute of account 'acme' (60)`."""
    value = shown(meter.limit) if meter.name.startswith("cost") else str(meter.limit)
    return f"{meter.name} of {subject.kind} '{excerpt(subject.name)}' ({value})"


def headers(subjects: Iterable[Subject], now: int) -> Headers:
    """What remains by the minute, in OpenAI's names: of the limit that is nearest to its end."""
    found: Headers = []
    for unit in (Unit.REQUESTS, Unit.TOKENS):
        name = f"{unit}_per_minute"
        meters = [m for s in subjects for _, m in s.meters if m.name == name]
        if not meters:
            continue
        left = [(meter.left(now), meter) for meter in meters]
        remaining, meter = min(left, key=lambda each: each[0] / (each[1].limit or 1))
        found += (
            (f"x-ratelimit-limit-{unit}".encode(), str(meter.limit).encode()),
            (f"x-ratelimit-remaining-{unit}".encode(), str(remaining).encode()),
            (f"x-ratelimit-reset-{unit}".encode(), duration(meter.reset_s(now)).encode()),
        )
    return found


def duration(seconds: float) -> str:
    """Seconds as OpenAI writes them in headers: `6m0s`, `1.25s`, `12ms`, `0s`."""
    if 0 < seconds < 1:
        return f"{max(1, round(seconds * 1000))}ms"
    minutes, rest = divmod(round(seconds, 2), 60)
    text = f"{rest:.2f}".rstrip("0").rstrip(".")
    return f"{int(minutes)}m{text}s" if minutes else f"{text}s"
