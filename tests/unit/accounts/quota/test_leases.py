"""Limits that several routers share, with a bank in memory that grants as the store does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from serving.accounts.quota.hold import BLOCK, Used
from serving.accounts.quota.leased import lease_of
from serving.accounts.quota.lender import Lender
from serving.accounts.quota.shelf import Shelf
from serving.catalogue.quota import Quota
from serving.catalogue.rate import SECOND
from serving.errors import BudgetExhausted, RateLimited, StoreUnavailable
from serving.observability.logs import open_log
from serving.observability.router_metrics import QuotaMetrics
from serving.store.engine import Store, StoreAway
from serving.store.quota_leases import BudgetAsk, BudgetLease, QuotaLeases, RateAsk, RateLease
from tests.unit.accounts.quota.doubles import CALLER, Clock, limiter, quota

ROUTERS = 2
PRICE = {"input": 1, "output": 4}
# What a request costs that uses what it holds at first, in billionths.
COST = 1000 + 4000 * BLOCK


class Bank:
    """The store's leases, which may be away."""

    def __init__(self, store: Store, router: str) -> None:
        self._leases = QuotaLeases(store, router)
        self.away = False

    async def renew(
        self, rates: Sequence[RateAsk], budgets: Sequence[BudgetAsk], now: int | None = None
    ) -> tuple[list[RateLease], list[BudgetLease]]:
        if self.away:
            raise StoreAway("as the test wants it")
        return await self._leases.renew(rates, budgets, now)


class Router:
    """The limits of one of several routers."""

    def __init__(
        self, name: str, store: Store, clock: Clock, given: Quota, folder: Path, **model: Any
    ) -> None:
        self.clock = clock
        self.bank = Bank(store, name)
        metrics = QuotaMetrics(CollectorRegistry())
        log = open_log("quota", str(folder))
        self.lender = Lender(self.bank, metrics, log, clock=clock)
        self.shelf = Shelf(lambda: ROUTERS, self.lender.low)
        self.limits = limiter(clock, {"acme": given}, self.shelf, **model)

    def send(self, account: str = "acme") -> bool:
        """Send a request that uses what it holds at first; False if it is refused."""
        try:
            hold = self.limits.admit(CALLER, account, "m", b"")
        except RateLimited:
            return False
        assert hold is not None
        hold.release(Used(1, 0, BLOCK))
        return True

    async def renew(self) -> None:
        await self.lender.renew(self.shelf)


async def passed(
    routers: Sequence[Router], rounds: int, burst: int = 1000, accounts: Sequence[str] = ("acme",)
) -> int:
    """How many requests pass, of as many as come, in rounds between two renewals. Accounts take
    turns."""
    total = 0
    for _ in range(rounds):
        for router in routers:
            for number in range(burst):
                if not router.send(accounts[number % len(accounts)]):
                    break
                total += 1
        for router in routers:
            await router.renew()
    return total


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize(
    ("name", "each"), [("requests_per_minute", 1), ("tokens_per_minute", BLOCK + 1)]
)
async def test_a_rate_is_overrun_by_a_lease_for_each_router_at_most(
    store: Store, clock: Clock, tmp_path: Path, name: str, each: int
) -> None:
    limit = 600 * each
    given = Quota.model_validate({name: limit})
    routers = [Router(letter, store, clock, given, tmp_path) for letter in ("a", "b")]
    lease = lease_of(name, limit, ROUTERS)
    assert lease == 60 * each
    total = each * await passed(routers, 50)
    assert limit <= total <= limit + ROUTERS * lease
    # Afterwards both together get what the limit refills, however uneven they are asked.
    clock.now += 30 * SECOND
    more = each * await passed(routers[:1], 50)
    assert limit // 2 - ROUTERS * lease <= more <= limit // 2 + ROUTERS * lease


@pytest.mark.parametrize(
    ("name", "value", "each"),
    [
        ("tokens_per_day", 100 * (BLOCK + 1), BLOCK + 1),
        ("tokens_per_month", 100 * (BLOCK + 1), BLOCK + 1),
        ("cost_per_day", "0.0257", COST),
        ("cost_per_month", "0.0257", COST),
    ],
)
async def test_a_budget_is_used_to_its_end_and_not_beyond(
    store: Store, clock: Clock, tmp_path: Path, name: str, value: int | str, each: int
) -> None:
    limit = 100 * each
    given = Quota.model_validate({name: value})
    routers = [Router(letter, store, clock, given, tmp_path, price=PRICE) for letter in "ab"]
    total = await passed(routers, 60)
    # Each may be left with less than a request: leases have shrunk to nothing with the budget.
    assert limit - ROUTERS * each <= total * each <= limit
    # One that comes now has a lease on credit until it has heard of the store.
    late = Router("late", store, clock, given, tmp_path, price=PRICE)
    more = await passed([late, *routers], 5)
    assert more * each <= lease_of(name, limit, ROUTERS)
    with pytest.raises(BudgetExhausted, match=rf"{name} of account 'acme' \({value}\) is used up"):
        routers[0].limits.admit(CALLER, "acme", "m", b"")


@pytest.mark.parametrize(
    ("name", "each", "overrun"),
    [("requests_per_minute", 1, ROUTERS), ("tokens_per_day", BLOCK + 1, 0)],
)
async def test_a_limit_of_a_model_is_one_for_all_accounts_and_routers(
    store: Store, clock: Clock, tmp_path: Path, name: str, each: int, overrun: int
) -> None:
    limit = 600 * each
    routers = [
        Router(letter, store, clock, quota(), tmp_path, quota={name: limit}) for letter in "ab"
    ]
    total = each * await passed(routers, 60, accounts=("acme", "other"))
    lease = lease_of(name, limit, ROUTERS)
    assert limit - ROUTERS * each <= total <= limit + overrun * lease
    for account in ("acme", "other", "late"):
        with pytest.raises(RateLimited, match=rf"{name} of model 'm' \({limit}\)"):
            routers[0].limits.admit(CALLER, account, "m", b"")


async def test_what_a_dead_router_had_leased_is_free_again(
    store: Store, clock: Clock, tmp_path: Path
) -> None:
    limit = 100 * (BLOCK + 1)
    given = quota(tokens_per_day=limit)
    dead = Router("dead", store, clock, given, tmp_path)
    assert await passed([dead], 1, burst=3) == 3
    clock.now += 31 * SECOND
    rest = await passed([Router("b", store, clock, given, tmp_path)], 60)
    assert rest == 97


async def test_a_router_that_ends_gives_its_lease_back(
    store: Store, clock: Clock, tmp_path: Path
) -> None:
    given = quota(tokens_per_day=100 * (BLOCK + 1))
    ending = Router("a", store, clock, given, tmp_path)
    assert await passed([ending], 1, burst=3) == 3
    await ending.lender.renew(ending.shelf, ending=True)
    assert await passed([Router("b", store, clock, given, tmp_path)], 60) == 97


async def test_while_the_store_is_away_requests_pass_and_are_charged_afterwards(
    store: Store, clock: Clock, tmp_path: Path
) -> None:
    router = Router("a", store, clock, quota(tokens_per_day=100 * (BLOCK + 1)), tmp_path)
    assert await passed([router], 1, burst=1) == 1
    router.bank.away = True
    assert await passed([router], 4, burst=50) > 100
    router.bank.away = False
    await router.renew()
    assert not router.send()
    used = await QuotaLeases(store, "x").used(
        {"tokens_per_day:account:acme": clock.now // SECOND // 86_400 * 86_400}
    )
    assert used["tokens_per_day:account:acme"] > 100 * (BLOCK + 1)


async def test_or_they_are_refused_beyond_the_lease(
    store: Store, clock: Clock, tmp_path: Path
) -> None:
    limit = 100 * (BLOCK + 1)
    router = Router("a", store, clock, quota(tokens_per_day=limit, without_store="block"), tmp_path)
    router.bank.away = True
    sent = 0
    while router.send():
        sent += 1
    # Only now is it known that the store is away.
    await router.renew()
    with pytest.raises(StoreUnavailable, match="tokens_per_day"):
        router.send()
    assert 0 < sent * (BLOCK + 1) <= lease_of("tokens_per_day", limit, ROUTERS)
    router.bank.away = False
    await router.renew()
    assert router.send()


@pytest.mark.parametrize("name", ["tokens_per_day", "tokens_per_minute"])
async def test_the_first_request_is_not_sent_back_if_the_limit_has_room_for_it(
    store: Store, clock: Clock, tmp_path: Path, name: str
) -> None:
    """Although the router's part of so small a limit is less than one request takes at first."""
    routers = [
        Router(each, store, clock, Quota.model_validate({name: 200}), tmp_path) for each in "ab"
    ]
    body = b"x" * 200
    for router in routers:
        hold = router.limits.admit(CALLER, "acme", "m", body)
        assert hold is not None
        hold.release(Used(30, 0, 20))
        await router.renew()
    # Each had no more than its lease on credit, which is what the request took.
    assert routers[0].send()


async def test_what_is_left_goes_to_whoever_needs_it(
    store: Store, clock: Clock, tmp_path: Path
) -> None:
    """And not to a router that nobody asks."""
    given = quota(tokens_per_day=10 * (BLOCK + 1))
    busy, idle = (Router(each, store, clock, given, tmp_path) for each in "ab")
    assert idle.send()
    await idle.renew()
    sent = 0
    for _ in range(40):
        clock.now += SECOND
        sent += busy.send()
        await busy.renew()
        await idle.renew()
    assert sent == 9
    with pytest.raises(BudgetExhausted):
        busy.limits.admit(CALLER, "acme", "m", b"")
    with pytest.raises(BudgetExhausted):
        idle.limits.admit(CALLER, "acme", "m", b"")


async def test_a_renewal_that_is_sent_again_changes_nothing(store: Store, clock: Clock) -> None:
    leases = QuotaLeases(store, "a")
    ask = BudgetAsk("tokens_per_day:account:acme", 0, 1000, 300, 100)
    first = await leases.renew([], [ask], clock.now)
    assert await leases.renew([], [ask], clock.now) == first
    assert first[1][0].granted == 400
    assert await leases.used({ask.pool: 0}) == {ask.pool: 300}
    assert await leases.used({ask.pool: 86_400}) == {ask.pool: 0}


async def test_a_new_period_has_nothing_of_the_old_one(store: Store, clock: Clock) -> None:
    leases = QuotaLeases(store, "a")
    await leases.renew([], [BudgetAsk("p", 0, 1000, 1000, 100)], clock.now)
    (lease,) = (await leases.renew([], [BudgetAsk("p", 86_400, 1000, 0, 100)], clock.now))[1]
    assert lease.granted == 100
    assert await leases.used({"p": 0}) == {"p": 0}
