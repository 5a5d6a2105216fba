"""Compares each request with the limits of its account, its key and its model."""

from __future__ import annotations

import time
from collections.abc import Callable

from serving.accounts.book import AccountBook
from serving.accounts.caller import Caller
from serving.accounts.quota.hold import Hold, give_back
from serving.accounts.quota.meter import SOON, Meter
from serving.accounts.quota.shelf import Shelf, Subject
from serving.accounts.quota.tariff import Tariff, Tariffs
from serving.accounts.quota.words import amount_words, headers, limit_words
from serving.api.guess import prompt_tokens
from serving.catalogue.quota import BUDGETS
from serving.catalogue.rate import SECOND
from serving.errors import BudgetExhausted, RateLimited
from serving.observability.router_metrics import QuotaMetrics


class Limiter:
    """The limits of one router. What it does takes microseconds and waits for nobody.

    Args:
        book: accounts with their quotas. A key's own comes with its caller.
        clock: nanoseconds since 1970.
    """

    def __init__(
        self,
        book: AccountBook,
        shelf: Shelf,
        metrics: QuotaMetrics,
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._book = book
        self._shelf = shelf
        self._metrics = metrics
        self._clock = clock
        self._tariffs: Tariffs | None = None
        self._models_limited = False

    def set_tariffs(self, tariffs: Tariffs) -> None:
        """Set what models cost and which quotas they have."""
        self._tariffs = tariffs
        self._models_limited = tariffs.limited

    def admit(self, caller: Caller, account: str | None, model_id: str, body: bytes) -> Hold | None:
        """What a request holds from now on; None if nothing limits it.

        Raises:
            RateLimited: a limit is reached; BudgetExhausted: for longer.
            StoreUnavailable: the store is away, and the limit blocks then.
        """
        if caller.quota is None and not self._book.limited and not self._models_limited:
            return None
        now = self._clock()
        tariff = self._tariffs.of(model_id) if self._tariffs is not None else Tariff(model_id)
        subjects = self._subjects(caller, account, tariff, now)
        if not subjects:
            return None
        hold = Hold(subjects, tariff.price, now, prompt_tokens(body, tariff.context))
        self._take(subjects, hold.amounts(), now)
        return hold

    def _subjects(
        self, caller: Caller, account: str | None, tariff: Tariff, now: int
    ) -> tuple[Subject, ...]:
        found = []
        quota = self._book.quota_of(account) if account else None
        if account and quota is not None:
            found.append(self._shelf.of("account", account, quota, now))
        if caller.quota is not None:
            found.append(self._shelf.of("key", caller.key_id, caller.quota, now))
        if tariff.quota is not None:
            found.append(self._shelf.of("model", tariff.model, tariff.quota, now))
        return tuple(found)

    def _take(
        self, subjects: tuple[Subject, ...], amounts: tuple[int, int, int, int], now: int
    ) -> None:
        """Take it of every meter, or of none."""
        taken: list[tuple[Meter, int]] = []
        try:
            for subject in subjects:
                for unit, meter in subject.meters:
                    amount = amounts[unit]
                    if wait := meter.take(amount, now):
                        self._metrics.refused.labels(subject.kind, meter.name).inc()
                        raise _refusal(subjects, subject, meter, amount, wait, now)
                    taken.append((meter, amount))
        except BaseException:
            give_back(taken, now)
            raise


def _refusal(
    subjects: tuple[Subject, ...], subject: Subject, meter: Meter, amount: int, wait: int, now: int
) -> RateLimited:
    words, wait_s = limit_words(subject, meter), wait / SECOND
    error: RateLimited
    if amount > meter.limit > 0:
        takes = amount_words(meter, amount)
        error = BudgetExhausted(f"this request alone takes {takes}, more than {words}")
    elif meter.name in BUDGETS and wait > SOON:
        error = BudgetExhausted(f"{words} is used up", retry_after_s=wait_s)
    else:
        error = RateLimited(f"{words} is reached", retry_after_s=wait_s)
    error.headers = headers(subjects, now)
    return error
