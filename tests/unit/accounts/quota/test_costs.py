"""Budgets of money: what they hold, where they end an answer, and what is said then."""

from __future__ import annotations

import pytest

from serving.accounts.quota.hold import BLOCK, Used
from serving.errors import BudgetExhausted
from tests.unit.accounts.quota.doubles import CALLER, Clock, limiter, quota

# In billionths a token costs 1,000, 500 and 4,000.
PRICE = {"input": "1", "cached": "0.5", "output": "4"}
EACH = pytest.mark.parametrize("name", ["cost_per_day", "cost_per_month"])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@EACH
def test_an_answer_ends_at_the_last_token_that_is_paid_for(clock: Clock, name: str) -> None:
    limits = limiter(clock, {"acme": quota(**{name: "0.001202"})}, price=PRICE)
    hold = limits.admit(CALLER, "acme", "m", b"")
    assert hold is not None
    meter = hold.subjects[0].meters[0][1]
    assert meter.left(clock.now) == 1_202_000 - 1_000 - 4_000 * BLOCK
    more = hold.extend(Used(10, 4, 32), clock.now)
    assert (more.tokens, more.last) == (32 + 2 * BLOCK, False)
    more = hold.extend(Used(10, 4, 100), clock.now)
    # What is left then is less than one token costs.
    assert (more.tokens, more.last) == (298, True)
    assert meter.left(clock.now) == 1_202_000 - 6 * 1_000 - 4 * 500 - 298 * 4_000 == 2_000
    assert hold.exhausted is not None
    words = f"{name} of account 'acme' (0.001202) is used up"
    assert hold.exhausted.message == f"the answer ends here: {words}"
    with pytest.raises(BudgetExhausted) as refused:
        limits.admit(CALLER, "acme", "m", b"")
    assert refused.value.message == words
    # It is noon on the last day of a month.
    assert refused.value.retry_after_s == 12 * 3600
    hold.release(Used(10, 4, 298))
    assert meter.left(clock.now) == 2_000


@EACH
def test_what_was_not_used_is_given_back(clock: Clock, name: str) -> None:
    limits = limiter(clock, {"acme": quota(**{name: "0.000257"})}, price=PRICE)
    hold = limits.admit(CALLER, "acme", "m", b"")
    assert hold is not None
    with pytest.raises(BudgetExhausted):
        limits.admit(CALLER, "acme", "m", b"")
    hold.release(None)
    assert limits.admit(CALLER, "acme", "m", b"") is not None


def test_a_request_that_costs_more_than_the_budget_is_told_so_in_money(clock: Clock) -> None:
    limits = limiter(clock, {"acme": quota(cost_per_day="0.0001")}, price=PRICE)
    with pytest.raises(BudgetExhausted) as refused:
        limits.admit(CALLER, "acme", "m", b"")
    takes = "this request alone takes 0.000257"
    assert refused.value.message == f"{takes}, more than cost_per_day of account 'acme' (0.0001)"


def test_a_budget_of_money_may_end_an_answer_that_one_of_tokens_would_not(clock: Clock) -> None:
    given = quota(cost_per_day="0.00077", tokens_per_day=1000)
    limits = limiter(clock, {"acme": given}, price=PRICE)
    hold = limits.admit(CALLER, "acme", "m", b"")
    assert hold is not None
    more = hold.extend(Used(10, 0, 64), clock.now)
    assert (more.tokens, more.last) == (190, True)
    assert hold.exhausted is not None
    assert "cost_per_day" in hold.exhausted.message
    (_, tokens), (_, money) = hold.subjects[0].meters
    # Tokens that cannot be paid for are not held either.
    assert (tokens.left(clock.now), money.left(clock.now)) == (800, 0)


def test_a_model_without_a_price_costs_nothing(clock: Clock) -> None:
    limits = limiter(clock, {"acme": quota(cost_per_day="0")})
    hold = limits.admit(CALLER, "acme", "m", b"")
    assert hold is not None
    assert not hold.extend(Used(10, 0, 500), clock.now).last
