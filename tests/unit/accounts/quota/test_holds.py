"""Whatever happens to requests, routers and renewals, in any order: each request is settled once,
and nothing is held in the end."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import structs
from prometheus_client import CollectorRegistry

from serving.accounts.caller import Caller
from serving.accounts.quota.hold import BLOCK, MAX_BLOCK, Used
from serving.accounts.quota.leased import lease_of
from serving.accounts.quota.lender import Lender
from serving.accounts.quota.shelf import Shelf
from serving.api.guess import prompt_tokens
from serving.catalogue.rate import SECOND
from serving.errors import RateLimited
from serving.observability.logs import open_log
from serving.observability.router_metrics import QuotaMetrics
from serving.router.admission import Admission, Ticket
from serving.store.engine import StoreAway
from serving.store.entry import Entry
from serving.store.quota_leases import (
    STALE_S,
    BudgetAsk,
    BudgetLease,
    RateAsk,
    RateLease,
    grant_budget,
    grant_rate,
)
from tests.unit.accounts.ledger.conftest import ENTRY
from tests.unit.accounts.quota.doubles import CALLER, Clock, limiter, quota

LIMIT, FLIGHT, ROUTERS, BODY = 3_000, 6, 2, b"x" * 40
NAMES = ("a", "b")


class Bank:
    """Grants as the store does; an answer may get lost after it was written down."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.tats: dict[str, int] = {}
        self.rows: dict[str, tuple[int, int, int]] = {}

    def renew(
        self, router: str, rates: Sequence[RateAsk], budgets: Sequence[BudgetAsk]
    ) -> tuple[list[RateLease], list[BudgetLease]]:
        now, for_rates, for_budgets = self.clock.now, [], []
        for ask in rates:
            tat, granted = grant_rate(max(now, self.tats.get(ask.pool, 0)), now, ask)
            self.tats[ask.pool] = tat
            for_rates.append(RateLease(granted, 0, now))
        for told in budgets:
            others = [row for name, row in self.rows.items() if name != router]
            fresh = [row for row in others if row[2] > now - STALE_S * SECOND]
            used = sum(row[0] for row in others)
            held = used + sum(max(0, row[1] - row[0]) for row in fresh)
            granted = grant_budget(told, held, 1 + len(fresh))
            self.rows[router] = (told.used, granted, now if told.want else 0)
            for_budgets.append(BudgetLease(granted, used, now))
        return for_rates, for_budgets


class Line:
    """One router's line to the bank."""

    def __init__(self, bank: Bank, router: str) -> None:
        self._bank, self._router = bank, router
        self.loses_answers = False

    async def renew(
        self, rates: Sequence[RateAsk], budgets: Sequence[BudgetAsk], now: int | None = None
    ) -> tuple[list[RateLease], list[BudgetLease]]:
        answer = self._bank.renew(self._router, rates, budgets)
        if self.loses_answers:
            raise StoreAway("the answer is lost")
        return answer


class Ledger:
    """The policy of admission: counts what is settled."""

    def __init__(self) -> None:
        self.entries: Counter[str] = Counter()

    async def admit(self, caller: Caller, account: str | None, model: str) -> None:
        pass

    async def settle(self, entry: Entry) -> None:
        self.entries[entry.request_id] += 1


@dataclass
class Running:
    """A request on its way: what its engine has made, and how far it may go."""

    number: str
    ticket: Ticket
    made: int = 0
    granted: int = BLOCK
    last: bool = False
    prompt: int = field(default_factory=lambda: prompt_tokens(BODY) - 1)

    @property
    def used(self) -> Used:
        return Used(self.prompt if self.made else 0, 0, self.made)


class Router:
    def __init__(self, name: str, bank: Bank, clock: Clock, folder: str) -> None:
        self.name = name
        self.line = Line(bank, name)
        self.ledger = Ledger()
        metrics = QuotaMetrics(CollectorRegistry())
        self.lender = Lender(self.line, metrics, open_log("t", folder), clock=clock)
        self.shelf = Shelf(lambda: ROUTERS, self.lender.low)
        given = quota(
            tokens_per_day=LIMIT,
            requests_in_flight=FLIGHT,
            tokens_per_minute=10**6,
            requests_per_minute=600,
        )
        limits = limiter(clock, {"acme": given}, self.shelf)
        self.admission = Admission(self.ledger, limits)
        self.running: list[Running] = []
        self.spent = 0

    def meter(self, name: str) -> Any:
        subject = self.shelf._subjects["account", "acme"]
        return next(meter for _, meter in subject.meters if meter.name == name)


class Holds(RuleBasedStateMachine):
    """Requests come, go on and end in routers that come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.bank = Bank(self.clock)
        self.folder = tempfile.TemporaryDirectory()
        self.numbers = 0
        self.dead_spent = self.routers_ever = 0
        self.routers = [self.new_router(name) for name in NAMES]
        self.loop = asyncio.new_event_loop()

    def new_router(self, name: str) -> Router:
        self.routers_ever += 1
        return Router(f"{name}{self.routers_ever}", self.bank, self.clock, self.folder.name)

    def wait_for(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    @rule(which=st.integers(0, 1))
    def request(self, which: int) -> None:
        router = self.routers[which]
        try:
            ticket = self.wait_for(router.admission.admit(CALLER, "acme", "m", BODY))
        except RateLimited:
            return
        self.numbers += 1
        router.running.append(Running(str(self.numbers), ticket))

    @precondition(lambda self: any(router.running for router in self.routers))
    @rule(pick=st.integers(0, 99), share=st.integers(1, 4))
    def generate(self, pick: int, share: int) -> None:
        """An engine makes tokens, up to what it may, and asks for more on its way."""
        router, request = self.picked(pick)
        request.made += max(0, request.granted - request.made) * share // 4
        hold = request.ticket.hold
        assert hold is not None
        if not request.last:
            self.wait_for(router.lender.renew(router.shelf))
            allowance = hold.extend(request.used, self.clock.now)
            request.granted, request.last = allowance.tokens, allowance.last

    @precondition(lambda self: any(router.running for router in self.routers))
    @rule(pick=st.integers(0, 99), again=st.integers(0, 2), known=st.booleans())
    def end(self, pick: int, again: int, known: bool) -> None:
        """It ends: well, or cancelled before or after its first byte, or with its engine."""
        router, request = self.picked(pick)
        router.running.remove(request)
        used = request.used
        entry = structs.replace(
            ENTRY,
            request_id=request.number,
            usage_known=known,
            prompt_tokens=used.prompt if known else 0,
            cached_tokens=0,
            completion_tokens=used.completion if known else 0,
        )
        hold = request.ticket.hold
        assert hold is not None
        for _ in range(1 + again):
            self.wait_for(request.ticket.settle(entry))
        charged = used if known else hold.seen or Used()
        router.spent += charged.prompt + charged.completion
        assert router.ledger.entries[request.number] == 1

    @precondition(lambda self: any(router.running for router in self.routers))
    @rule(pick=st.integers(0, 99))
    def retry(self, pick: int) -> None:
        """Its replica dies before a byte has left, and another one begins anew."""
        _, request = self.picked(pick)
        request.made, request.granted, request.last = 0, BLOCK, False

    @rule(which=st.integers(0, 1), lost=st.booleans())
    def renew(self, which: int, lost: bool) -> None:
        router = self.routers[which]
        router.line.loses_answers = lost
        self.wait_for(router.lender.renew(router.shelf))
        router.line.loses_answers = False
        self.wait_for(router.lender.renew(router.shelf))

    @rule(which=st.integers(0, 1))
    def die(self, which: int) -> None:
        """A router is killed; another one takes its place."""
        dead = self.routers[which]
        self.dead_spent += dead.spent + sum(sum(request.used) for request in dead.running)
        self.routers[which] = self.new_router(NAMES[which])

    @rule(seconds=st.integers(1, 60))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds * SECOND

    def picked(self, number: int) -> tuple[Router, Running]:
        found = [(router, each) for router in self.routers for each in router.running]
        return found[number % len(found)]

    @invariant()
    def a_budget_is_overrun_by_a_lease_for_each_router_at_most(self) -> None:
        used = self.dead_spent + sum(
            router.spent + sum(sum(each.used) for each in router.running) for router in self.routers
        )
        lease = max(lease_of("tokens_per_day", LIMIT, ROUTERS), MAX_BLOCK + len(BODY))
        assert used <= LIMIT + self.routers_ever * lease

    @invariant()
    def no_more_run_than_may(self) -> None:
        assert all(len(router.running) <= FLIGHT // ROUTERS for router in self.routers)

    def teardown(self) -> None:
        for router in self.routers:
            while router.running:
                self.end(0, 1, True)
            if ("account", "acme") in router.shelf._subjects:
                assert router.meter("requests_in_flight").running == 0
                assert router.meter("tokens_per_day")._used == router.spent
            assert set(router.ledger.entries.values()) <= {1}
        self.loop.close()
        self.folder.cleanup()


Holds.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestHolds = Holds.TestCase
