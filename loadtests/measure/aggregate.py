"""All that is kept of a run's requests: small, exact, and merged in any order.

The processes that send each fill one, by one call per finished request; the leader merges them.
Requests are counted by model, account, priority, traffic and phase; coarser cuts are made from
these at the end (`cuts.py`).
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, Self

import msgspec

from loadtests.measure.cell import Cell, Key
from loadtests.measure.client import ClientFigures
from loadtests.measure.histogram import micros
from loadtests.measure.record import Outcome, Record
from loadtests.measure.timeline import Timeline, step_for
from loadtests.scenarios.model import Scenario
from loadtests.scenarios.traffic import Slo

_FORMAT = 1
_RECENT = 2000  # first tokens that are kept for the terminal, between two looks


class Live(msgspec.Struct, kw_only=True):
    """What the terminal shows of one process: totals so far, but for `ttft_us`, which are the
    times to the first token that have come since the last look."""

    due: int = 0
    sent: int = 0
    ended: dict[str, int] = {}  # by phase
    outcomes: dict[str, int] = {}
    errors: dict[str, int] = {}
    tokens: int = 0  # of requests that have ended
    wrong: int = 0
    ttft_us: list[int] = []

    def plus(self, other: Live) -> Live:
        """Both together."""
        return Live(
            due=self.due + other.due,
            sent=self.sent + other.sent,
            ended=_sum(self.ended, other.ended),
            outcomes=_sum(self.outcomes, other.outcomes),
            errors=_sum(self.errors, other.errors),
            tokens=self.tokens + other.tokens,
            wrong=self.wrong + other.wrong,
            ttft_us=[*self.ttft_us, *other.ttft_us],
        )


class Aggregate:
    """`slos` by traffic; `ends`: when each phase ends, in seconds since the run's start; `late_s`:
    by how much a client may be late."""

    def __init__(
        self,
        slos: Mapping[str, Slo],
        ends: Mapping[str, float],
        late_s: float = 0.0,
        step_s: int = 1,
    ) -> None:
        self._slos, self._ends, self._late_s = slos, ends, late_s
        self.cells: dict[Key, Cell] = {}
        self.timeline = Timeline(step_s)
        self.clients: list[ClientFigures] = []
        self._ended: dict[str, int] = {}
        self._outcomes: dict[str, int] = {}
        self._errors: dict[str, int] = {}
        self._tokens = self._wrong = 0
        self._recent = array("I")

    @classmethod
    def of(cls, scenario: Scenario) -> Self:
        """An empty one for this scenario."""
        ends = list(accumulate(phase.seconds for phase in scenario.phases))
        return cls(
            {traffic.name: traffic.slo for traffic in scenario.traffic},
            {phase.name: end for phase, end in zip(scenario.phases, ends, strict=True)},
            scenario.client.max_lag_p99_ms / 1000,
            step_for(ends[-1]),
        )

    def add(self, record: Record) -> None:
        """Count a request that has ended."""
        phase = record.phase
        key = (record.model, record.account, record.priority, record.traffic, phase)
        cell = self.cells.get(key)
        if cell is None:
            cell = self.cells[key] = Cell(record.counted)
        begun = record.begun_s
        in_time = 0 < begun <= max(record.due_s, self._ends.get(phase, begun)) + self._late_s
        cell.add(record, is_good(record, self._slos.get(record.traffic)), in_time)
        self.timeline.add(record)
        self._show(record)

    def _show(self, record: Record) -> None:
        ended, outcomes = self._ended, self._outcomes
        ended[record.phase] = ended.get(record.phase, 0) + 1
        outcomes[record.outcome.value] = outcomes.get(record.outcome.value, 0) + 1
        self._tokens += record.completion_tokens
        self._wrong += record.wrong
        if record.first_s is not None and len(self._recent) < _RECENT:
            self._recent.append(micros(record.first_s - record.due_s))
        if record.outcome in (Outcome.ERROR, Outcome.REJECTED):
            kind = record.error or f"HTTP {record.status}"
            if kind in self._errors or len(self._errors) < 100:
                self._errors[kind] = self._errors.get(kind, 0) + 1

    def live(self, due: int = 0, sent: int = 0) -> Live:
        """What the terminal shows. `due` and `sent` only the sender knows before requests end."""
        recent, self._recent = self._recent, array("I")
        return Live(
            due=due,
            sent=sent,
            ended=dict(self._ended),
            outcomes=dict(self._outcomes),
            errors=dict(self._errors),
            tokens=self._tokens,
            wrong=self._wrong,
            ttft_us=recent.tolist(),
        )

    def merge(self, other: Aggregate) -> None:
        """Add another one, of the same scenario; it stays as it is.

        Raises ValueError if they do not fit together.
        """
        self.timeline.merge(other.timeline)
        for key, cell in other.cells.items():
            mine = self.cells.get(key)
            if mine is None:
                mine = self.cells[key] = Cell(cell.counted)
            mine.merge(cell)
        self.clients = sorted([*self.clients, *other.clients], key=lambda client: client.name)

    def to_bytes(self) -> bytes:
        """All of it, but for what the terminal shows."""
        cells = sorted(self.cells.items(), key=lambda item: _sortable(item[0]))
        state = [
            _FORMAT,
            [[*key, *cell.state()] for key, cell in cells],
            self.timeline.state(),
            self.clients,
        ]
        return zlib.compress(msgspec.msgpack.encode(state), 1)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` made. It can be merged and read; it counts no further requests' SLO.

        Raises ValueError if it is something else, or of another version.
        """
        try:
            state: list[Any] = msgspec.msgpack.decode(zlib.decompress(data))
            version, cells, timeline, clients = state
        except (zlib.error, msgspec.DecodeError, TypeError, ValueError) as error:
            raise ValueError(f"this is no state of a run: {error}") from error
        if version != _FORMAT:
            raise ValueError(
                f"a state of version {version} cannot be read by this one ({_FORMAT}): "
                "run and merge with the same version of loadtest"
            )
        self = cls({}, {})
        self.timeline = Timeline.of(timeline)
        for model, account, priority, traffic, phase, *cell in cells:
            self.cells[model, account, priority, traffic, phase] = Cell.of(cell)
        self.clients = [msgspec.convert(client, ClientFigures) for client in clients]
        return self


def is_good(record: Record, slo: Slo | None) -> bool:
    """Whether it met its traffic's SLO: a whole and right answer, in time. A limit on what it does
    not have (the first token of an answer in one piece) does not count."""
    if record.outcome is not Outcome.OK or record.wrong:
        return False
    if slo is None:
        return True
    if slo.e2e_ms is not None and record.e2e_s * 1000 > slo.e2e_ms:
        return False
    if slo.ttft_ms is not None:
        ttft = record.ttft_s
        if ttft is not None and ttft * 1000 > slo.ttft_ms:
            return False
    if slo.tpot_ms is not None:
        tpot = record.tpot_s
        if tpot is not None and tpot * 1000 > slo.tpot_ms:
            return False
    return True


def _sortable(key: Key) -> tuple[str, str, bool, int, str, str]:
    model, account, priority, traffic, phase = key
    return model, account, priority is not None, priority or 0, traffic, phase


def _sum(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    return {key: a.get(key, 0) + b.get(key, 0) for key in {**a, **b}}
