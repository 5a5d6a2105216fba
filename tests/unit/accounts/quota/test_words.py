"""What callers are told of limits by the minute, in headers."""

from __future__ import annotations

import pytest

from serving.accounts.caller import Caller
from serving.accounts.quota.hold import BLOCK, Used
from serving.accounts.quota.words import duration
from serving.catalogue.rate import SECOND
from serving.errors import RateLimited
from tests.unit.accounts.quota.doubles import CALLER, Clock, limiter, quota

TOKENS = BLOCK + 1


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_tokens_that_remain_are_those_that_are_not_held(clock: Clock) -> None:
    limits = limiter(clock, {"acme": quota(tokens_per_minute=2 * TOKENS)})
    hold = limits.admit(CALLER, "acme", "m", b"")
    assert hold is not None
    assert dict(hold.headers()) == {
        b"x-ratelimit-limit-tokens": b"%d" % (2 * TOKENS),
        b"x-ratelimit-remaining-tokens": b"%d" % TOKENS,
        b"x-ratelimit-reset-tokens": b"30s",
    }
    assert limits.admit(CALLER, "acme", "m", b"") is not None
    with pytest.raises(RateLimited) as refused:
        limits.admit(CALLER, "acme", "m", b"")
    told = dict(refused.value.headers)
    assert told[b"x-ratelimit-remaining-tokens"] == b"0"
    assert told[b"x-ratelimit-reset-tokens"] == b"1m0s"
    # What was not used is there again, for those that come later.
    hold.release(Used(0, 0, 0))
    clock.now += SECOND
    later = limits.admit(CALLER, "acme", "m", b"")
    assert later is not None
    assert dict(later.headers())[b"x-ratelimit-remaining-tokens"] == b"2"


def test_of_several_limits_that_is_told_which_is_nearest_to_its_end(clock: Clock) -> None:
    """By the part that is left, and each kind by itself."""
    limits = limiter(
        clock,
        {"acme": quota(requests_per_minute=100, tokens_per_minute=10 * TOKENS)},
        quota={"requests_per_minute": 4, "tokens_per_minute": 100 * TOKENS},
    )
    key = Caller("svk_two", "acme", quota=quota(requests_per_minute=2, tokens_per_day=10**6))
    hold = limits.admit(key, "acme", "m", b"")
    assert hold is not None
    found = dict(hold.headers())
    # The key's: one of two. The account's: nine of ten.
    assert found[b"x-ratelimit-limit-requests"] == b"2"
    assert found[b"x-ratelimit-remaining-requests"] == b"1"
    assert found[b"x-ratelimit-limit-tokens"] == b"%d" % (10 * TOKENS)
    assert found[b"x-ratelimit-remaining-tokens"] == b"%d" % (9 * TOKENS)
    # For a caller with another key, the model's: two of four.
    hold = limits.admit(CALLER, "acme", "m", b"")
    assert hold is not None
    assert dict(hold.headers())[b"x-ratelimit-limit-requests"] == b"4"
    # Of the model 37 of a hundred are left, which is nearer than the account's eight of ten.
    hold = limits.admit(CALLER, "other", "m", b"")
    assert hold is not None
    hold.release(Used(0, 0, 60 * TOKENS))
    hold = limits.admit(CALLER, "acme", "m", b"")
    assert hold is not None
    found = dict(hold.headers())
    assert found[b"x-ratelimit-limit-tokens"] == b"%d" % (100 * TOKENS)
    assert found[b"x-ratelimit-remaining-tokens"] == b"%d" % (37 * TOKENS)


def test_limits_that_are_not_by_the_minute_have_no_headers(clock: Clock) -> None:
    limits = limiter(clock, {"acme": quota(tokens_per_day=1000, requests_in_flight=9)})
    hold = limits.admit(CALLER, "acme", "m", b"")
    assert hold is not None
    assert hold.headers() == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0001, "1ms"), (0.012, "12ms"), (1.25, "1.25s"), (60, "1m0s"), (361.5, "6m1.5s")],
)
def test_seconds_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text
