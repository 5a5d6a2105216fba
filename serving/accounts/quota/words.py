"""Limits as callers read them: in the sentences of refusals, and in headers."""

from __future__ import annotations

from collections.abc import Iterable

from serving.accounts.quota.meter import Meter
from serving.accounts.quota.shelf import Subject
from serving.api.excerpt import excerpt
from serving.catalogue.price import shown

Headers = list[tuple[bytes, bytes]]
_NAMES = {
    f"{unit}_per_minute": (
        f"x-ratelimit-limit-{unit}".encode(),
        f"x-ratelimit-remaining-{unit}".encode(),
        f"x-ratelimit-reset-{unit}".encode(),
    )
    for unit in ("requests", "tokens")
}
# All of them.
HEADERS = tuple(name for names in _NAMES.values() for name in names)


def limit_words(subject: Subject, meter: Meter) -> str:
    """Which limit, and its value: `requests_per_minute of account 'acme' (60)`."""
    value = amount_words(meter, meter.limit)
    return f"{meter.name} of {subject.kind} '{excerpt(subject.name)}' ({value})"


def amount_words(meter: Meter, amount: int) -> str:
    """So much of what a limit counts; money as people write it."""
    return shown(amount) if meter.name.startswith("cost") else str(amount)


def headers(subjects: Iterable[Subject], now: int) -> Headers:
    """What remains by the minute, in OpenAI's names: of the limit that is nearest to its end."""
    found: Headers = []
    for name, (limit, remaining, reset) in _NAMES.items():
        nearest: Meter | None = None
        left = 0
        for subject in subjects:
            for _, meter in subject.meters:
                if meter.name == name:
                    here = meter.left(now)
                    if nearest is None or here * nearest.limit < left * meter.limit:
                        nearest, left = meter, here
        if nearest is not None:
            found.append((limit, b"%d" % nearest.limit))
            found.append((remaining, b"%d" % left))
            found.append((reset, duration(nearest.reset_s(now)).encode()))
    return found


def duration(seconds: float) -> str:
    """Seconds as OpenAI writes them in headers: `6m0s`, `1.25s`, `12ms`, `0s`."""
    if 0 < seconds < 1:
        return f"{max(1, round(seconds * 1000))}ms"
    minutes, rest = divmod(round(seconds, 2), 60)
    text = f"{rest:.2f}".rstrip("0").rstrip(".")
    return f"{int(minutes)}m{text}s" if minutes else f"{text}s"
