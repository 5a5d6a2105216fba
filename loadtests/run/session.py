"""A conversation: its turns, each sent some time after the answer to the one before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from loadtests.clock import Clock
from loadtests.load.planned import Planned, Turns
from loadtests.measure.record import Outcome, Record
from loadtests.run.agenda import Agenda
from loadtests.wire.bodies import Said
from loadtests.wire.client import Client


@dataclass(slots=True)
class Counts:
    """What one process did, beside its records."""

    due: dict[str, int] = field(default_factory=dict)  # requests whose time has come, by phase
    ended: int = 0
    events: int = 0
    cut: int = 0  # turns that would have come after the end of the last phase
    lost: int = 0  # turns that never came due, as an earlier one of their session had failed


@dataclass(frozen=True, slots=True)
class Run:
    """What all sessions of a process share."""

    client: Client
    clock: Clock
    agenda: Agenda
    counted: dict[str, bool]  # by phase
    end_s: float  # of the last phase
    sink: Callable[[Record], None]
    counts: Counts


class Session:
    """Sends the turns of one conversation.

    `ended` is called once, with the time at which its last answer ended.
    """

    __slots__ = ("_due_s", "_ended", "_history", "_next", "_run", "_turns")

    def __init__(self, run: Run, turns: Turns, ended: Callable[[float], None]) -> None:
        self._run = run
        self._turns = turns
        self._ended = ended
        self._next = 0
        self._due_s = 0.0
        self._history: list[Said] = []

    def begin(self, due_s: float, request: bytes) -> None:
        """Send the first turn now. It was due then, and its request is made already."""
        self._due_s = due_s
        self._send(request)

    def _send(self, request: bytes) -> None:
        run, planned = self._run, self._turns[self._next]
        due = run.counts.due
        due[planned.phase] = due.get(planned.phase, 0) + 1
        record = record_of(planned, self._due_s, run.counted)
        last = self._next + 1 == len(self._turns)
        run.client.send(planned, record, request, self._over, keep_text=not last)

    def _over(self, record: Record, text: str) -> None:
        run = self._run
        run.counts.ended += 1
        run.counts.events += len(record.event_s)
        run.sink(record)
        planned = self._turns[self._next]
        self._next += 1
        rest = len(self._turns) - self._next
        if not rest:
            self._ended(record.end_s)
        elif record.outcome not in (Outcome.OK, Outcome.CANCELLED):
            run.counts.lost += rest
            self._ended(record.end_s)
        else:
            self._history.append(Said(planned.prompt, text))
            self._due_s = record.end_s + self._turns[self._next].think_s
            if self._due_s >= run.end_s:
                run.counts.cut += rest
                self._ended(record.end_s)
            else:
                run.agenda.at(self._due_s, self._turn)

    def _turn(self) -> None:
        self._send(self._run.client.prepare(self._turns[self._next], self._history))


def record_of(planned: Planned, due_s: float, counted: dict[str, bool]) -> Record:
    """Return the record of a request that is about to be sent."""
    return Record(
        index=planned.index,
        phase=planned.phase,
        traffic=planned.traffic,
        model=planned.model,
        account=planned.account,
        priority=planned.priority,
        session=planned.session,
        turn=planned.turn,
        stream=planned.stream,
        counted=counted[planned.phase],
        due_s=due_s,
        max_tokens=planned.max_tokens,
    )
