"""The meters of a router: those of each account, key and model that was asked for lately."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from serving.accounts.quota.leased import Leased, LeasedBudget, LeasedRate, Terms
from serving.accounts.quota.meter import Budget, InFlight, Meter, Rate, Unit, unit_of
from serving.catalogue.price import nanos
from serving.catalogue.quota import BUDGETS, LIMITS, Quota


@dataclass(slots=True)
class Subject:
    """The meters of one account, key or model; `kind` says which of these. `used_at` is in
    nanoseconds since 1970."""

    kind: str
    name: str
    quota: Quota
    meters: tuple[tuple[Unit, Meter], ...]
    used_at: int = 0

    @property
    def spends(self) -> bool:
        """True if it has limits on tokens or money."""
        return any(unit >= Unit.TOKENS for unit, _ in self.meters)


class Shelf:
    """Makes meters when they are first needed.

    Args:
        routers: how many routers there are.
        low: called when a lease runs low; None: there is no store to lease from.
    """

    def __init__(self, routers: Callable[[], int], low: Callable[[], None] | None) -> None:
        self._routers = routers
        self._low = low
        self._subjects: dict[tuple[str, str], Subject] = {}

    def of(self, kind: str, name: str, quota: Quota, now: int) -> Subject:
        """The meters of an account, key or model. If its quota has changed, those whose limits are
        as before go on."""
        subject = self._subjects.get((kind, name))
        if subject is None or (subject.quota is not quota and subject.quota != quota):
            subject = self._subjects[kind, name] = self._make(kind, name, quota, subject)
        subject.used_at = now
        return subject

    def leased(self) -> Iterator[Leased]:
        """The meters that have leases."""
        for subject in self._subjects.values():
            for _, meter in subject.meters:
                if isinstance(meter, Leased):
                    yield meter

    def forget(self, before: int) -> None:
        """Forget subjects that were not asked for since, and that have nothing in flight."""
        for key, subject in list(self._subjects.items()):
            if subject.used_at < before and not any(
                isinstance(meter, InFlight) and meter.running for _, meter in subject.meters
            ):
                del self._subjects[key]

    def _make(self, kind: str, name: str, quota: Quota, old: Subject | None) -> Subject:
        same = {m.name: m for _, m in old.meters} if old else {}
        meters: list[tuple[Unit, Meter]] = []
        for limit in LIMITS:
            if (value := getattr(quota, limit)) is None:
                continue
            number = nanos(value) if limit.startswith("cost") else int(value)
            meter = same.get(limit)
            if meter is None:
                meter = self._meter(kind, name, limit, number, quota)
            meter.limit = number
            meters.append((unit_of(limit), meter))
        return Subject(kind, name, quota, tuple(meters))

    def _meter(self, kind: str, name: str, limit: str, number: int, quota: Quota) -> Meter:
        if limit == "requests_in_flight":
            return InFlight(limit, number, self._routers)
        is_budget = limit in BUDGETS
        if self._low is None:
            return (Budget if is_budget else Rate)(limit, number, self._routers)
        blocks = quota.without_store == "block"
        terms = Terms(self._routers, pool_of(kind, name, limit), blocks, self._low)
        return (LeasedBudget if is_budget else LeasedRate)(limit, number, terms)


def pool_of(kind: str, name: str, limit: str) -> str:
    """What a limit is called in the store."""
    return f"{limit}:{kind}:{name}"
