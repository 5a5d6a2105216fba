"""The client's counts beside the service's own, to the token.

Every difference is either explained, by something that the client or the service knows of itself,
or a finding (`Count.unexplained`):

- A client that leaves, or whose connection breaks, does not see the usage; the service has counted
  it. What came is a lower bound of those tokens, and what was asked for an upper one.
- A service that has answered before it notices that its client has left counts the request as ok.
- A process that was killed has lost what it counted since it was last asked.
- A request that never reached the service is not in its counts.
- A request that still runs when all clients have gone is a finding by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadtests.measure.aggregate import Aggregate
from loadtests.measure.cell import Cell
from loadtests.measure.record import Outcome
from loadtests.measure.scrape import Snapshot
from loadtests.measure.server import ServerCounts, Tally, from_metrics
from loadtests.measure.summary import Count

_NAMES = 50  # of models, and of accounts, that are compared one by one


def reconcile(
    before: Snapshot,
    after: Snapshot,
    aggregate: Aggregate,
    others: Sequence[ServerCounts] = (),
) -> list[Count]:
    """Compare with the metrics of these two times, and with other sources. Warm-up counts, too: the
    service does not know that it is one. Empty without any source."""
    metrics = from_metrics(before, after)
    sources = [*([metrics] if metrics is not None else []), *others]
    return [count for source in sources for count in Comparison(aggregate, source).counts()]


@dataclass(frozen=True, slots=True)
class Part:
    """What is compared: all requests, or those of one model or account."""

    cell: Cell
    tally: Tally
    model: str | None = None
    account: str | None = None

    @property
    def name(self) -> str | None:
        """Of the model or account."""
        return self.account if self.model is None else self.model

    def of(self, counter: Counter[str]) -> int:
        """The service's count of it."""
        return counter.total() if self.name is None else counter[self.name]


class Comparison:
    """The whole run beside one source."""

    def __init__(self, aggregate: Aggregate, server: ServerCounts) -> None:
        self._server = server
        self._all = Cell(counted=True)
        self._models: dict[str, Cell] = {}
        self._accounts: dict[str, Cell] = {}
        for (model, account, *_), cell in aggregate.cells.items():
            self._all.merge(cell)
            self._models.setdefault(model, Cell(counted=True)).merge(cell)
            self._accounts.setdefault(account, Cell(counted=True)).merge(cell)

    def counts(self) -> list[Count]:
        """Requests, their outcomes, and tokens; then by model and by account, where both name the
        same ones."""
        server = self._server
        everything = self._everything
        found = [
            self._requests(everything),
            self._ok(),
            self._cancelled(),
            self._failed(),
            self._tokens("prompt tokens", everything),
            self._tokens("completion tokens", everything),
        ]
        if server.running:
            found.append(
                Count(
                    what="requests still running",
                    model=None,
                    client=0,
                    server=server.running,
                    source=server.source,
                )
            )
        # What was refused has been counted under no model, mostly.
        asked = {
            model: cell for model, cell in self._models.items() if cell.requests > cell.refused
        }
        if not _named(server.models):
            pass  # it does not tell them apart
        elif unknown := _unknown(asked, server.models):
            found[0].note = _join(
                found[0].note,
                f"compared in total only: the service counts {_some(unknown)} under other names "
                "(adapters under their base, aliases under their model)",
            )
        elif len(asked) > 1:
            for model, cell in _most(asked):
                found += self._part(Part(cell, server.models, model=model))
        if len(self._accounts) > 1 and _named(server.accounts):
            if unknown := _unknown(self._accounts, server.accounts):
                found[0].note = _join(
                    found[0].note,
                    f"accounts are not compared: the service does not name any {_some(unknown)}",
                )
            else:
                for account, cell in _most(self._accounts):
                    found += self._part(Part(cell, server.accounts, account=account))
        return found

    @property
    def _everything(self) -> Part:
        return Part(self._all, self._server.models)

    def _part(self, part: Part) -> list[Count]:
        return [
            self._requests(part),
            self._tokens("prompt tokens", part),
            self._tokens("completion tokens", part),
        ]

    def _count(
        self, what: str, part: Part, client: int, server: int, *, more: int, less: int,
        notes: Sequence[str] = (),
    ) -> Count:  # fmt: skip
        """`more` and `less`: how much more, or less, the service may well have counted."""
        difference = server - client
        if difference < 0 and self._server.lost:
            less = -difference
            notes = [*notes, f"the service's count is a lower bound: {_some(self._server.lost)}"]
        elif self._server.lost:
            notes = [*notes, f"the service's count is not sure: {_some(self._server.lost)}"]
        explained = min(abs(difference), more if difference > 0 else less)
        return Count(
            what=what,
            model=part.model,
            account=part.account,
            client=client,
            server=server,
            explained=explained,
            note=_join(*notes) if difference else "",
            source=self._server.source,
        )

    def _requests(self, part: Part) -> Count:
        mine, server = part.cell, self._server
        client = mine.requests - mine.unsent
        counted = part.of(part.tally.requests)
        notes = []
        less = mine.unanswered
        if mine.unanswered:
            notes.append(f"{mine.unanswered} had no answer and may not have reached the service")
        if server.running:
            less += server.running
            notes.append(f"{server.running} still ran at the service")
        uncounted = self._uncounted(mine)
        less += uncounted
        if uncounted:
            notes.append(server.uncounted)
        if server.counts_refused and part.model is not None and mine.refused:
            # Before a model was looked up, so under none.
            less += mine.refused
            notes.append(f"{mine.refused} were refused, maybe before the model was known")
        if counted > client:
            notes.append(
                f"the service counted {counted - client} more requests than were sent: others have "
                "called it in this time, so nothing can be reconciled; run again alone"
            )
        return self._count("requests", part, client, counted, more=0, less=less, notes=notes)

    def _uncounted(self, mine: Cell, cancelled: bool = True) -> int:
        """How many of these requests the source may not have counted."""
        found = 0 if self._server.counts_refused else mine.refused
        if not self._server.counts_left:
            found += mine.failed + (mine.cancelled if cancelled else 0)
        return found

    def _ok(self) -> Count:
        mine, server = self._all, self._server
        left = mine.cancelled + mine.broken
        notes = [f"of {left} requests that the client left, or lost, the service ended some first"]
        counted = server.outcomes[Outcome.OK]
        return self._count(
            "requests ok",
            self._everything,
            mine.ok,
            counted,
            more=left,
            less=0,
            notes=notes if left else (),
        )

    def _cancelled(self) -> Count:
        mine, server = self._all, self._server
        counted = server.outcomes[Outcome.CANCELLED]
        ended = max(0, server.outcomes[Outcome.OK] - mine.ok)
        notes = []
        if mine.broken:
            notes.append(f"{mine.broken} broke off or had no answer in time")
        if ended:
            notes.append(f"{ended} had been answered before the service saw that the client left")
        uncounted = 0
        if not server.counts_left:
            uncounted = mine.cancelled
            notes.append(server.uncounted)
        less = ended + uncounted + server.running
        return self._count(
            "requests cancelled", self._everything, mine.cancelled, counted,
            more=mine.broken, less=less, notes=notes,
        )  # fmt: skip

    def _failed(self) -> Count:
        mine, server = self._all, self._server
        client = mine.error + mine.rejected - mine.unsent
        counted = server.outcomes[Outcome.ERROR] + server.outcomes[Outcome.REJECTED]
        notes = []
        less = mine.broken
        if mine.broken:
            notes.append(f"{mine.broken} broke off at the client, or had no answer in time")
        if uncounted := self._uncounted(mine, cancelled=False):
            less += uncounted
            notes.append(server.uncounted)
        return self._count(
            "requests failed", self._everything, client, counted, more=0, less=less, notes=notes
        )

    def _tokens(self, what: str, part: Part) -> Count:
        server, cell = self._server, part.cell
        prompt = what == "prompt tokens"
        theirs = part.of(part.tally.prompt_tokens if prompt else part.tally.completion_tokens)
        mine = cell.prompt_tokens if prompt else cell.completion_tokens
        notes = []
        if not prompt:
            mine += cell.unseen_events
        more = 0
        if cell.usage_missing:
            if prompt or cell.unbounded:
                more = max(0, theirs - mine)
            else:
                more = max(0, cell.unseen_tokens - cell.unseen_events)
            notes.append(f"the usage of {cell.usage_missing} requests never came")
            if not prompt:
                notes.append(f"{cell.unseen_events} of their tokens did and are counted here")
        less = 0
        if server.without_usage:
            less = max(0, mine - theirs)
            notes.append(f"the service does not know the tokens of {server.without_usage} requests")
        if server.running:
            less = max(0, mine - theirs)
            notes.append(f"{server.running} requests still ran at the service")
        return self._count(what, part, mine, theirs, more=more, less=less, notes=notes)


def _unknown(mine: Mapping[str, Cell], theirs: Tally) -> list[str]:
    """Names that the service does not have."""
    return sorted(set(mine) - _named(theirs))


def _named(tally: Tally) -> set[str]:
    return {name for name in tally.requests if name}


def _most(cells: Mapping[str, Cell]) -> list[tuple[str, Cell]]:
    return sorted(cells.items(), key=lambda item: (-item[1].requests, item[0]))[:_NAMES]


def _join(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
