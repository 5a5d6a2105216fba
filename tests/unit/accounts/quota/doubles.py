"""What tests of limits share: a clock, a log, a shelf."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry

from serving.accounts.book import Account, AccountBook
from serving.accounts.caller import Caller
from serving.accounts.quota.limiter import Limiter
from serving.accounts.quota.shelf import Shelf
from serving.accounts.quota.tariff import Tariffs
from serving.catalogue.catalogue import Catalogue
from serving.catalogue.quota import Quota
from serving.observability.router_metrics import QuotaMetrics
from tests.unit.accounts.quota.test_meter import NOON

CALLER = Caller("svk_one", None)


class Clock:
    """Nanoseconds that move when the test says so."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> int:
        return self.now


def quota(**limits: Any) -> Quota:
    return Quota.model_validate(limits)


def limiter(
    clock: Clock, accounts: dict[str, Quota], shelf: Shelf | None = None, **model: Any
) -> Limiter:
    """Limits without a store, on a catalogue of one model and its alias."""
    book = AccountBook()
    book.replace(Account(name, quota=each) for name, each in accounts.items())
    metrics = QuotaMetrics(CollectorRegistry())
    made = Limiter(book, shelf or Shelf(lambda: 1, None), metrics, clock=clock)
    entry = {"kind": "engine", "id": "m", "weights": "w", "context": 1000, **model}
    made.set_tariffs(
        Tariffs(Catalogue.model_validate({"models": [entry], "aliases": {"alias": "m"}}))
    )
    return made
