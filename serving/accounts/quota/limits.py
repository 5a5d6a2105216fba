"""The limits of one router, put together: who is limited, and what renews the leases."""

from __future__ import annotations

import asyncio
import uuid

from serving.accounts.book import AccountBook
from serving.accounts.quota.lender import Lender
from serving.accounts.quota.limiter import Limiter
from serving.accounts.quota.shelf import Shelf
from serving.accounts.quota.tariff import Tariffs
from serving.catalogue.catalogue import Catalogue
from serving.observability.logs import Log
from serving.observability.router_metrics import QuotaMetrics
from serving.observability.tasks import background, end
from serving.store.engine import Store
from serving.store.quota_leases import QuotaLeases


class Limits:
    """The limits of one router. Without a store it enforces its share of each, by the number of
    routers in the catalogue; with one it leases parts of them."""

    def __init__(
        self, store: Store | None, book: AccountBook, metrics: QuotaMetrics, log: Log
    ) -> None:
        self._routers = 1
        self._log = log
        self._task: asyncio.Task[None] | None = None
        self._lender: Lender | None = None
        if store is not None:
            # Of this process: what another one of the same router had used stays its own.
            self._lender = Lender(QuotaLeases(store, uuid.uuid4().hex), metrics, log)
        low = self._lender.low if self._lender else None
        self._shelf = Shelf(lambda: self._routers, low)
        self.limiter = Limiter(book, self._shelf, metrics)

    def set_catalogue(self, catalogue: Catalogue) -> None:
        """Set what models cost, which quotas they have, and how many routers there are."""
        self._routers = catalogue.router.replicas
        self.limiter.set_tariffs(Tariffs(catalogue))

    def start(self) -> None:
        """Renew leases from now on."""
        if self._lender is not None:
            self._task = background(self._lender.run(self._shelf), "renew_quotas", self._log)

    async def close(self) -> None:
        """Say what was used, and give the leases back."""
        if self._task is not None and self._lender is not None:
            await end(self._task)
            await self._lender.renew(self._shelf, ending=True)
