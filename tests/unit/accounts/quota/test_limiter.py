"""Which requests pass, what they hold, and what is said to those that do not."""

from __future__ import annotations

import pytest

from serving.accounts.caller import Caller
from serving.accounts.quota.hold import BLOCK, Used
from serving.accounts.quota.shelf import Shelf
from serving.catalogue.rate import SECOND
from serving.errors import BudgetExhausted, RateLimited
from tests.unit.accounts.quota.doubles import CALLER, Clock, limiter, quota

TEXT = b"x" * 100
PRICE = {"input": "1", "cached": "0.5", "output": "4"}


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_without_limits_nothing_is_held(clock: Clock) -> None:
    assert limiter(clock, {}).admit(CALLER, "acme", "m", TEXT) is None
    # Another account's.
    limits = limiter(clock, {"other": quota(requests_per_minute=1)})
    assert limits.admit(CALLER, "acme", "m", TEXT) is None
    assert limits.admit(CALLER, None, "m", TEXT) is None


def test_a_refusal_names_the_limit_its_value_and_when_to_come_back(clock: Clock) -> None:
    limits = limiter(clock, {"acme": quota(requests_per_minute=2)})
    for _ in range(2):
        hold = limits.admit(CALLER, "acme", "m", b"")
        assert hold is not None
    assert dict(hold.headers()) == {
        b"x-ratelimit-limit-requests": b"2",
        b"x-ratelimit-remaining-requests": b"0",
        b"x-ratelimit-reset-requests": b"1m0s",
    }
    with pytest.raises(RateLimited) as refused:
        limits.admit(CALLER, "acme", "m", b"")
    assert refused.value.message == "requests_per_minute of account 'acme' (2) is reached"
    assert refused.value.retry_after_s == 30.0
    assert dict(refused.value.headers)[b"x-ratelimit-remaining-requests"] == b"0"
    clock.now += 30 * SECOND
    assert limits.admit(CALLER, "acme", "m", b"") is not None


def test_key_model_and_account_each_have_their_own(clock: Clock) -> None:
    limits = limiter(
        clock,
        {"acme": quota(requests_per_minute=3)},
        quota={"requests_in_flight": 2},
    )
    key = Caller("svk_two", "acme", quota=quota(requests_per_minute=1))
    first = limits.admit(key, "acme", "alias", b"")
    with pytest.raises(RateLimited, match="requests_per_minute of key 'svk_two'"):
        limits.admit(key, "acme", "m", b"")
    # A request that was refused by one limit counts for none.
    assert limits.admit(CALLER, "acme", "m", b"") is not None
    with pytest.raises(RateLimited, match="requests_in_flight of model 'm'"):
        limits.admit(CALLER, "acme", "m", b"")
    assert first is not None
    first.release(Used())
    assert limits.admit(CALLER, "acme", "m", b"") is not None
    with pytest.raises(RateLimited, match="requests_per_minute of account 'acme'"):
        limits.admit(CALLER, "acme", "m", b"")


def test_a_prompt_and_a_first_block_are_held_and_what_was_used_is_charged(clock: Clock) -> None:
    shelf = Shelf(lambda: 1, None)
    limits = limiter(clock, {"acme": quota(tokens_per_day=1000, requests_in_flight=9)}, shelf)
    hold = limits.admit(CALLER, "acme", "m", 4 * TEXT)
    assert hold is not None
    used = {m.name: m for _, m in hold.subjects[0].meters}
    assert used["tokens_per_day"].left(clock.now) == 1000 - 101 - BLOCK
    hold.release(Used(20, 5, 7))
    hold.release(Used(20, 5, 7))
    assert used["tokens_per_day"].left(clock.now) == 1000 - 27
    assert used["requests_in_flight"].left(clock.now) == 9


def test_a_body_that_is_longer_than_the_context_is_held_as_that(clock: Clock) -> None:
    limits = limiter(clock, {"acme": quota(tokens_per_day=5000)})
    hold = limits.admit(CALLER, "acme", "m", 10_000 * TEXT)
    assert hold is not None
    assert hold.subjects[0].meters[0][1].left(clock.now) == 5000 - 1000 - BLOCK


def test_money_is_counted_in_whole_billionths(clock: Clock) -> None:
    limits = limiter(clock, {"acme": quota(cost_per_month="0.001")}, price=PRICE)
    hold = limits.admit(CALLER, "acme", "m", b"")
    assert hold is not None
    hold.release(Used(100, 40, 10))
    left = hold.subjects[0].meters[0][1].left(clock.now)
    assert left == 1_000_000 - (60 * 1000 + 40 * 500 + 10 * 4000)


def test_a_budget_that_is_used_up_ends_an_answer_at_its_last_token(clock: Clock) -> None:
    limits = limiter(clock, {"acme": quota(tokens_per_day=300)})
    hold = limits.admit(CALLER, "acme", "m", b"")
    assert hold is not None
    meter = hold.subjects[0].meters[0][1]
    more = hold.extend(Used(10, 0, 32), clock.now)
    assert (more.tokens, more.last) == (32 + 2 * BLOCK, False)
    more = hold.extend(Used(10, 0, 100), clock.now)
    assert (more.tokens, more.last) == (290, True)
    assert meter.left(clock.now) == 0
    assert hold.exhausted is not None
    assert "tokens_per_day of account 'acme' (300) is used up" in hold.exhausted.message
    with pytest.raises(BudgetExhausted) as refused:
        limits.admit(CALLER, "acme", "m", b"")
    assert refused.value.retry_after_s == 12 * 3600
    hold.release(Used(10, 0, 290))
    assert meter.left(clock.now) == 0


def test_a_rate_ends_no_answer_and_is_waited_for_afterwards(clock: Clock) -> None:
    limits = limiter(clock, {"acme": quota(tokens_per_minute=120)})
    hold = limits.admit(CALLER, "acme", "m", b"")
    assert hold is not None
    for made in (60, 200, 500):
        assert not hold.extend(Used(10, 0, made), clock.now).last
    hold.release(Used(10, 0, 590))
    with pytest.raises(RateLimited) as refused:
        limits.admit(CALLER, "acme", "m", b"")
    assert refused.value.retry_after_s == pytest.approx((600 - 120 + 1 + BLOCK) / 2, abs=0.01)


def test_parallel_requests_with_much_to_say_hold_no_more_than_their_blocks(clock: Clock) -> None:
    limits = limiter(clock, {"acme": quota(tokens_per_day=10_000)})
    holds = [limits.admit(CALLER, "acme", "m", b"") for _ in range(100)]
    assert all(holds)
    for hold in holds:
        assert hold is not None
        hold.release(None)
    assert holds[0] is not None
    assert holds[0].subjects[0].meters[0][1].left(clock.now) == 10_000


def test_what_the_engine_said_last_is_charged_if_it_dies(clock: Clock) -> None:
    limits = limiter(clock, {"acme": quota(tokens_per_day=10_000)})
    hold = limits.admit(CALLER, "acme", "m", b"")
    assert hold is not None
    hold.extend(Used(10, 0, 32), clock.now)
    hold.release(None)
    assert hold.subjects[0].meters[0][1].left(clock.now) == 10_000 - 42


def test_a_request_that_no_budget_could_hold_is_told_so(clock: Clock) -> None:
    limits = limiter(clock, {"acme": quota(tokens_per_minute=10)})
    with pytest.raises(BudgetExhausted, match="takes 165, more than tokens_per_minute") as refused:
        limits.admit(CALLER, "acme", "m", 4 * TEXT)
    assert refused.value.retry_after_s is None


def test_a_changed_limit_goes_on_from_what_was_used(clock: Clock) -> None:
    shelf = Shelf(lambda: 1, None)
    before = limiter(clock, {"acme": quota(tokens_per_day=1000)}, shelf)
    hold = before.admit(CALLER, "acme", "m", b"")
    assert hold is not None
    hold.release(Used(0, 0, 400))
    after = limiter(clock, {"acme": quota(tokens_per_day=500, requests_per_minute=9)}, shelf)
    with pytest.raises(BudgetExhausted, match=r"tokens_per_day of account 'acme' \(500\)"):
        after.admit(CALLER, "acme", "m", 2 * TEXT)
