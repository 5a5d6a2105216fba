from __future__ import annotations

import random
from email.utils import formatdate

import pytest

from serving.upstream.backoff import MAX_WAIT_S, retry_after, wait_s

NOW = 1_760_000_000.0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "3"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "3"}, 3.0),
        ({"retry-after": formatdate(NOW + 7, usegmt=True)}, 7.0),
        ({"retry-after": formatdate(NOW - 7, usegmt=True)}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": ""}, None),
    ],
)
def test_retry_after(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after(headers, now=NOW) == expected


def test_backoff_is_jittered_over_the_whole_range_and_bounded() -> None:
    rng = random.Random(1)
    for attempt, limit in ((0, 0.5), (1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (9, 8.0)):
        waits = [wait_s(attempt, None, rng) or 0.0 for _ in range(500)]
        assert min(waits) < limit / 20
        assert limit * 0.95 < max(waits) <= limit


def test_what_is_asked_for_is_kept_and_a_little_more() -> None:
    rng = random.Random(1)
    waits = [wait_s(0, 4.0, rng) or 0.0 for _ in range(100)]
    assert min(waits) >= 4.0
    assert max(waits) <= 4.5
    assert len(set(waits)) > 50


def test_nobody_sleeps_too_long() -> None:
    assert wait_s(0, MAX_WAIT_S + 0.1, random.Random(1)) is None
