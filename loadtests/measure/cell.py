"""What is counted of the requests of one model, account, priority, traffic and phase."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from loadtests.measure.histogram import TOP, Histogram, State, micros
from loadtests.measure.record import Outcome, Record

# Model, account, priority, traffic, phase.
Key = tuple[str, str, int | None, str, str]

OTHER = "(other)"
_KINDS = 1000  # distinct kinds of errors; further ones count as OTHER

TIMES = ("ttft", "tpot", "gap", "e2e", "service_ttft", "service_e2e", "lag")
COUNTS = (
    "requests",
    "ok",
    "error",
    "cancelled",
    "rejected",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "usage_missing",  # requests that may have used tokens, and did not say how many
    "unseen_events",  # events with text of those
    "unseen_tokens",  # tokens that they asked for at most
    "unbounded",  # those of which that is not known
    "refused",  # errors and rejections with a status that refuses: 4xx, 501, 503, 505
    "failed",  # further ones with a status of 5xx
    "broken",  # begun, and errors without such a status: no answer, or one that broke off
    "unanswered",  # of those: without any status
    "unsent",  # never begun
    "in_time",  # begun before their phase's end, or as late as a client may be
    "good",
    "checked",
    "wrong",
)


class Cell:
    """Counts and times of some requests. All are integers, so merging is exact."""

    __slots__ = (*COUNTS, *TIMES, "counted", "errors", "last_us")

    def __init__(self, counted: bool) -> None:
        self.counted = counted
        self.errors: dict[str, int] | None = None
        self.last_us = 0  # when the last whole answer ended, since the run's start
        self.requests = self.ok = self.error = self.cancelled = self.rejected = 0
        self.prompt_tokens = self.cached_tokens = self.completion_tokens = 0
        self.usage_missing = self.unseen_events = self.unseen_tokens = self.unbounded = 0
        self.refused = self.failed = self.broken = self.unanswered = 0
        self.unsent = self.in_time = 0
        self.good = self.checked = self.wrong = 0
        # Made when the first value comes: thousands of models have a cell each.
        self.ttft: Histogram | None = None
        self.tpot: Histogram | None = None
        self.gap: Histogram | None = None
        self.e2e: Histogram | None = None
        self.service_ttft: Histogram | None = None
        self.service_e2e: Histogram | None = None
        self.lag: Histogram | None = None

    def add(self, record: Record, good: bool, in_time: bool) -> None:
        """Count one request."""
        self.requests += 1
        outcome, begun, status = record.outcome, record.begun_s > 0, record.status
        if outcome is Outcome.OK:
            self.ok += 1
        elif outcome is Outcome.CANCELLED:
            self.cancelled += 1
        else:
            if outcome is Outcome.REJECTED:
                self.rejected += 1
            else:
                self.error += 1
            if 400 <= status < 500 or status in (501, 503, 505):
                self.refused += 1
            elif status >= 500:
                self.failed += 1
            elif begun:
                self.broken += 1
                self.unanswered += not status
            self.kind(record.error or f"HTTP {status}")
        self.unsent += not begun
        self.prompt_tokens += record.prompt_tokens
        self.cached_tokens += record.cached_tokens
        self.completion_tokens += record.completion_tokens
        if not record.usage_seen and begun and status < 400:
            self.usage_missing += 1
            self.unseen_events += len(record.event_s)
            self.unseen_tokens += record.max_tokens
            self.unbounded += not record.max_tokens
        self.good += good
        self.in_time += in_time
        self.checked += record.checked
        self.wrong += record.wrong
        if begun:
            self._times(record)

    def _times(self, record: Record) -> None:
        due, sent, first, end = record.due_s, record.sent_s, record.first_s, record.end_s
        self._histogram("lag").add(micros(record.begun_s - due))
        if first is not None:
            self._histogram("ttft").add(micros(first - due))
            self._histogram("service_ttft").add(micros(first - sent))
            events = record.event_s
            if len(events) > 1:
                self._histogram("gap").extend(gaps(events))
        if record.outcome is not Outcome.OK:
            return
        # An answer that failed or was left took no time that could be compared.
        self._histogram("e2e").add(micros(end - due))
        self._histogram("service_e2e").add(micros(end - sent))
        tpot = record.tpot_s
        if tpot is not None:
            self._histogram("tpot").add(micros(tpot))
        self.last_us = max(self.last_us, micros(end))

    def _histogram(self, name: str) -> Histogram:
        histogram: Histogram | None = getattr(self, name)
        if histogram is None:
            histogram = Histogram()
            setattr(self, name, histogram)
        return histogram

    def kind(self, kind: str, count: int = 1) -> None:
        """Count errors of a kind."""
        errors = self.errors
        if errors is None:
            errors = self.errors = {}
        kind = kind[:100]
        if kind not in errors and len(errors) >= _KINDS:
            kind = OTHER
        errors[kind] = errors.get(kind, 0) + count

    @property
    def outcomes(self) -> dict[str, int]:
        return {outcome.value: getattr(self, outcome.value) for outcome in Outcome}

    def merge(self, other: Cell) -> None:
        """Add what another cell has counted; it stays as it is."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for kind, count in (other.errors or {}).items():
            self.kind(kind, count)
        self.last_us = max(self.last_us, other.last_us)
        for name, histogram in other.histograms():
            self._histogram(name).merge(histogram)

    def histograms(self) -> Iterator[tuple[str, Histogram]]:
        """Those that have values, by name."""
        for name in TIMES:
            histogram = getattr(self, name)
            if histogram is not None:
                yield name, histogram

    def state(self) -> list[Any]:
        """All of it, as it can be sent."""
        counts = [getattr(self, name) for name in COUNTS]
        times: dict[str, State] = {name: of.state() for name, of in self.histograms()}
        errors = dict(sorted((self.errors or {}).items()))
        return [self.counted, self.last_us, counts, errors, times]

    @classmethod
    def of(cls, state: list[Any]) -> Cell:
        """The cell that has this state."""
        counted, last_us, counts, errors, times = state
        self = cls(counted)
        self.last_us = last_us
        for name, count in zip(COUNTS, counts, strict=True):
            setattr(self, name, count)
        self.errors = errors or None
        for name, of in times.items():
            setattr(self, name, Histogram.of(of))
        return self


def gaps(events: array[float]) -> array[int]:
    """Microseconds between events that follow each other."""
    found = [int((b - a) * 1e6 + 0.5) for a, b in pairwise(events)]
    try:
        return array("I", found)
    except OverflowError:  # a clock that stepped, or more than an hour
        return array("I", [min(max(gap, 0), TOP) for gap in found])
