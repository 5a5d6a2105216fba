"""The client's counts beside the service's own, to the token.

Every difference is either explained, by something that the client or the service knows of itself,
or a finding (`Count.unexplained`):

- A client that leaves, or whose connection breaks, does not see the usage; the service has counted
  it. What came is a lower bound of those tokens, and what was asked for an upper one.
- A service that has answered before it notices that its client has left counts the request as ok.
- A process that was killed has lost what it counted since it was last asked.
- A request that never reached the service is not in its counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from loadtests.measure.aggregate import Aggregate
from loadtests.measure.cell import Cell
from loadtests.measure.record import Outcome
from loadtests.measure.scrape import Snapshot
from loadtests.measure.server import ServerCounts, from_metrics
from loadtests.measure.summary import Count

_MODELS = 50  # that are compared one by one
_UNCOUNTED = "vLLM does not count what it refuses, nor every request that its client has left"


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


class Comparison:
    """The whole run beside one source."""

    def __init__(self, aggregate: Aggregate, server: ServerCounts) -> None:
        self._server = server
        self._all = Cell(counted=True)
        self._models: dict[str, Cell] = {}
        for (model, *_), cell in aggregate.cells.items():
            self._all.merge(cell)
            self._models.setdefault(model, Cell(counted=True)).merge(cell)

    def counts(self) -> list[Count]:
        """Requests, their outcomes, and tokens; then by model, if both name the same ones."""
        server = self._server
        found = [
            self._requests(),
            self._ok(),
            self._cancelled(),
            self._failed(),
            self._tokens("prompt tokens", None, self._all),
            self._tokens("completion tokens", None, self._all),
        ]
        named = {model for model in server.requests if model}
        # What was refused has been counted under no model, mostly.
        asked = {
            model: cell for model, cell in self._models.items() if cell.requests > cell.refused
        }
        unknown = sorted(set(asked) - named)
        if unknown and len(asked) > 1:
            found[0].note = _join(
                found[0].note,
                f"compared in total only: the service counts {_some(unknown)} under other names "
                "(adapters under their base, aliases under their model)",
            )
        elif len(asked) > 1:
            ordered = sorted(asked.items(), key=lambda item: (-item[1].requests, item[0]))
            for model, cell in ordered[:_MODELS]:
                found.append(self._requests(model, cell))
                found.append(self._tokens("prompt tokens", model, cell))
                found.append(self._tokens("completion tokens", model, cell))
        return found

    def _count(
        self, what: str, model: str | None, client: int, server: int, *, more: int, less: int,
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
            model=model,
            client=client,
            server=server,
            explained=explained,
            note=_join(*notes) if difference else "",
            source=self._server.source,
        )

    def _requests(self, model: str | None = None, cell: Cell | None = None) -> Count:
        mine = cell or self._all
        server = self._server
        client = mine.requests - mine.unsent
        counted = server.requests.total() if model is None else server.requests[model]
        notes = []
        less = mine.unanswered
        if mine.unanswered:
            notes.append(f"{mine.unanswered} had no answer and may not have reached the service")
        if server.running:
            less += server.running
            notes.append(f"{server.running} still ran at the service")
        if not server.counts_all:
            less += mine.refused + mine.failed + mine.cancelled
            notes.append(_UNCOUNTED)
        elif model is not None and mine.refused:
            # Before a model was looked up, so under none.
            less += mine.refused
            notes.append(f"{mine.refused} were refused, maybe before the model was known")
        if counted > client:
            notes.append(
                f"the service counted {counted - client} more requests than were sent: others have "
                "called it in this time, so nothing can be reconciled; run again alone"
            )
        return self._count("requests", model, client, counted, more=0, less=less, notes=notes)

    def _ok(self) -> Count:
        mine, server = self._all, self._server
        left = mine.cancelled + mine.broken
        notes = [f"of {left} requests that the client left, or lost, the service ended some first"]
        counted = server.outcomes[Outcome.OK]
        return self._count(
            "requests ok", None, mine.ok, counted, more=left, less=0, notes=notes if left else ()
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
        if not server.counts_all:
            uncounted = mine.cancelled
            notes.append(_UNCOUNTED)
        less = ended + uncounted + server.running
        return self._count(
            "requests cancelled", None, mine.cancelled, counted,
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
        if not server.counts_all:
            less += mine.refused + mine.failed
            notes.append(_UNCOUNTED)
        return self._count("requests failed", None, client, counted, more=0, less=less, notes=notes)

    def _tokens(self, what: str, model: str | None, cell: Cell) -> Count:
        server = self._server
        prompt = what == "prompt tokens"
        counted: Counter[str] = server.prompt_tokens if prompt else server.completion_tokens
        theirs = counted.total() if model is None else counted[model]
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
        return self._count(what, model, mine, theirs, more=more, less=less, notes=notes)


def _join(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
