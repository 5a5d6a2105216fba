"""Renews the leases of a router, in the background: no request waits for the store."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from serving.accounts.quota.leased import Leased, LeasedBudget, LeasedRate
from serving.accounts.quota.shelf import Shelf
from serving.catalogue.rate import MINUTE
from serving.observability.logs import Log
from serving.observability.router_metrics import QuotaMetrics
from serving.store.engine import StoreAway
from serving.store.migrate import SchemaError
from serving.store.quota_leases import BudgetAsk, BudgetLease, RateAsk, RateLease

# How often leases are looked at, and how soon again when one runs low, in seconds.
RENEW_S, AGAIN_S = 1.0, 0.02
# A store that takes longer is away.
ANSWER_S = 5.0
# Pools of one transaction.
BATCH = 200
# What was not asked for so long is forgotten, in nanoseconds.
KEEP = 60 * MINUTE


class Bank(Protocol):
    """Who grants leases: `serving.store.quota_leases.QuotaLeases`."""

    async def renew(
        self, rates: Sequence[RateAsk], budgets: Sequence[BudgetAsk], now: int | None = None
    ) -> tuple[list[RateLease], list[BudgetLease]]: ...


class Lender:
    """Brings the bank's leases to the meters. `low` is to be called when one runs low."""

    def __init__(
        self,
        bank: Bank,
        metrics: QuotaMetrics,
        log: Log,
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._bank = bank
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._low = asyncio.Event()
        self._away = False

    def low(self) -> None:
        """A lease runs low: renew soon."""
        self._low.set()

    async def run(self, shelf: Shelf) -> None:
        """Renew for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RENEW_S):
                    await self._low.wait()
            self._low.clear()
            await self.renew(shelf)
            shelf.forget(self._clock() - KEEP)
            await asyncio.sleep(RENEW_S if self._away else AGAIN_S)

    async def renew(self, shelf: Shelf, *, ending: bool = False) -> None:
        """Say what was used, and renew the leases that need it; `ending`: give them back."""
        now = self._clock()
        due: list[tuple[Leased, RateAsk | BudgetAsk]] = []
        for meter in shelf.leased():
            ask = meter.ask(now, ending=ending)
            if ask is not None:
                due.append((meter, ask))
        try:
            for start in range(0, len(due), BATCH):
                async with asyncio.timeout(ANSWER_S):
                    await self._renew(due[start : start + BATCH])
        except (StoreAway, SchemaError, TimeoutError) as error:
            self._set_away(shelf, error)
        except Exception as error:  # noqa: BLE001 - it must go on, or no lease would be renewed
            self._log.exception("quota_leases_not_renewed", error)
            self._set_away(shelf, error)
        else:
            if due or self._away:
                self._set_away(shelf, None)

    async def _renew(self, due: Sequence[tuple[Leased, RateAsk | BudgetAsk]]) -> None:
        rates = [(m, a) for m, a in due if isinstance(m, LeasedRate) and isinstance(a, RateAsk)]
        budgets = [
            (m, a) for m, a in due if isinstance(m, LeasedBudget) and isinstance(a, BudgetAsk)
        ]
        for_rates, for_budgets = await self._bank.renew(
            [ask for _, ask in rates], [ask for _, ask in budgets], self._clock()
        )
        for (rate, asked), lease in zip(rates, for_rates, strict=True):
            rate.renew(asked, lease)
        for (budget, told), granted in zip(budgets, for_budgets, strict=True):
            budget.renew(told, granted)

    def _set_away(self, shelf: Shelf, error: Exception | None) -> None:
        away = error is not None
        for meter in shelf.leased():
            meter.away = away
        self._metrics.leases_up.set(not away)
        if away != self._away:
            self._away = away
            if away:
                reason = str(error) or type(error).__name__
                self._log.error("quota_store_away", reason=reason)
            else:
                self._log.info("quota_store_back")
