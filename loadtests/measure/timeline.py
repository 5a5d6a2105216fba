"""The run second by second. In a long run a step is longer than one, so that it stays small."""

from __future__ import annotations

from bisect import bisect_left
from math import ceil
from typing import Any

from loadtests.measure.histogram import Histogram, micros
from loadtests.measure.record import Outcome, Record
from loadtests.measure.summary import Second

STEPS = 3600  # of the timeline, about; a longer run has longer steps

_COUNTS = ("due", "sent", "ended", "ok", "failed", "rejected", "cancelled", "tokens", "left")


def step_for(seconds: float) -> int:
    """The length of a step, in seconds, for a run of this length."""
    step = 1
    while seconds > step * STEPS:
        step *= 2
    return step


class Step:
    """What is counted in one step."""

    __slots__ = (*_COUNTS, "e2e", "ttft")

    def __init__(self) -> None:
        self.due = self.sent = self.ended = 0
        self.ok = self.failed = self.rejected = self.cancelled = 0
        self.tokens = 0
        self.left = 0  # ended, having been begun
        self.ttft: Histogram | None = None
        self.e2e: Histogram | None = None

    def merge(self, other: Step) -> None:
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.ttft is not None:
            self.ttft = self.ttft or Histogram()
            self.ttft.merge(other.ttft)
        if other.e2e is not None:
            self.e2e = self.e2e or Histogram()
            self.e2e.merge(other.e2e)


class Timeline:
    """Requests by when they were due; what was sent, came and ended by when it did."""

    def __init__(self, step_s: int = 1) -> None:
        self.step_s = step_s
        self._steps: dict[int, Step] = {}

    def add(self, record: Record) -> None:
        """Count one request."""
        due = self._at(record.due_s)
        due.due += 1
        ended = self._at(record.end_s)
        ended.ended += 1
        if record.begun_s > 0:
            self._at(record.begun_s).sent += 1
            ended.left += 1
        outcome = record.outcome
        if outcome is Outcome.OK:
            due.ok += 1
            if due.e2e is None:
                due.e2e = Histogram()
            due.e2e.add(micros(record.end_s - record.due_s))
        elif outcome is Outcome.ERROR:
            due.failed += 1
        elif outcome is Outcome.REJECTED:
            due.rejected += 1
        else:
            due.cancelled += 1
        if record.first_s is not None:
            if due.ttft is None:
                due.ttft = Histogram()
            due.ttft.add(micros(record.first_s - record.due_s))
        self._tokens(record)

    def _tokens(self, record: Record) -> None:
        """Where the tokens came: an equal share of them with each event."""
        events, tokens = record.event_s, record.completion_tokens
        if not record.usage_seen:
            tokens = len(events)  # one for each event, as most services send them
        if not tokens:
            return
        if not events:
            self._at(record.end_s).tokens += tokens
            return
        step, n, done, place = self.step_s, len(events), 0, 0
        while place < n:
            number = int(events[place] // step)
            place = bisect_left(events, (number + 1) * step, place + 1)
            until = tokens * place // n
            self._step(number).tokens += until - done
            done = until

    def _at(self, seconds: float) -> Step:
        return self._step(int(seconds // self.step_s))

    def _step(self, number: int) -> Step:
        found = self._steps.get(number)
        if found is None:
            found = self._steps[number] = Step()
        return found

    def merge(self, other: Timeline) -> None:
        """Add another one. Raises ValueError if its steps have another length."""
        if other.step_s != self.step_s:
            raise ValueError(
                f"timelines with steps of {self.step_s} s and {other.step_s} s do not fit together"
            )
        for number, step in other._steps.items():
            self._step(number).merge(step)

    def window(self, start_s: float, end_s: float) -> tuple[Step, float]:
        """The steps that begin in this time, put together, and how many seconds they have."""
        first, end = (ceil(round(at / self.step_s, 6)) for at in (start_s, end_s))
        whole = Step()
        for number in range(first, end):
            if number in self._steps:
                whole.merge(self._steps[number])
        return whole, float((end - first) * self.step_s)

    def seconds(self) -> list[Second]:
        """The figures, from the run's start to the last step with something in it."""
        figures: list[Second] = []
        in_flight = 0
        for number in range(max(self._steps, default=-1) + 1):
            step = self._steps.get(number) or Step()
            in_flight += step.sent - step.left
            ttft = step.ttft.percentiles((500, 990)) if step.ttft else (None, None)
            e2e = step.e2e.percentiles((990,)) if step.e2e else (None,)
            figures.append(
                Second(
                    at_s=number * self.step_s,
                    seconds=self.step_s,
                    due=step.due,
                    sent=step.sent,
                    ended=step.ended,
                    ok=step.ok,
                    failed=step.failed,
                    rejected=step.rejected,
                    cancelled=step.cancelled,
                    tokens=step.tokens,
                    in_flight=in_flight,
                    ttft_p50_ms=_ms(ttft[0]),
                    ttft_p99_ms=_ms(ttft[1]),
                    e2e_p99_ms=_ms(e2e[0]),
                )
            )
        return figures

    def state(self) -> list[Any]:
        """All of it, as it can be sent."""
        steps = [
            [
                number,
                [getattr(step, name) for name in _COUNTS],
                step.ttft and step.ttft.state(),
                step.e2e and step.e2e.state(),
            ]
            for number, step in sorted(self._steps.items())
        ]
        return [self.step_s, steps]

    @classmethod
    def of(cls, state: list[Any]) -> Timeline:
        """The timeline that has this state."""
        step_s, steps = state
        self = cls(step_s)
        for number, counts, ttft, e2e in steps:
            step = self._steps[number] = Step()
            for name, count in zip(_COUNTS, counts, strict=True):
                setattr(step, name, count)
            step.ttft = ttft and Histogram.of(ttft)
            step.e2e = e2e and Histogram.of(e2e)
        return self


def _ms(us: int | None) -> float | None:
    return None if us is None else us / 1000
