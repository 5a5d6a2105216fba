"""Each request is settled once, also if whoever settles it is cut off."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from serving.observability.logs import Log, open_log
from serving.observability.router_metrics import RouterMetrics
from serving.router import settlement
from serving.router.admission import Ticket
from serving.router.answer import Answer
from serving.router.record import Record, Recorder
from serving.router.settlement import Settlements
from serving.store.entry import Entry
from serving.wire.messages import End


class Nobody:
    """A replica that is told to stop, and says what the test says."""

    def cancel(self, stream: int) -> None:
        pass


class Book:
    """Keeps an entry, and then takes its time."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.written = asyncio.Event()

    async def admit(self, *_: object) -> None:
        pass

    async def settle(self, entry: Entry) -> None:
        self.entries.append(entry)
        await self.written.wait()


@pytest.fixture
async def book() -> Book:
    return Book()


@pytest.fixture
def metrics() -> RouterMetrics:
    return RouterMetrics()


@pytest.fixture
def settlements(metrics: RouterMetrics, log: Log, tmp_path: Path) -> Settlements:
    return Settlements(Recorder(metrics, open_log("settlement-test", str(tmp_path))), log)


def cancelled(book: Book) -> tuple[Record, Answer]:
    """A request whose client has left, and its answer."""
    record = Record("r", "/v4/completions")
    record.ticket = Ticket(book)
    record.answer = answer = Answer(Nobody(), 1)
    record.end(asyncio.CancelledError())
    return record, answer


def written(metrics: RouterMetrics) -> float:
    return sum(s.value for s in metrics.requests.collect()[0].samples if s.name.endswith("_total"))


async def test_what_is_known_is_settled_at_once(
    settlements: Settlements, book: Book, metrics: RouterMetrics
) -> None:
    record, answer = cancelled(book)
    answer.on_end(End(prompt_tokens=3, completion_tokens=2))
    book.written.set()
    before = asyncio.all_tasks()
    await settlements.settle(record)
    assert asyncio.all_tasks() == before, "it takes no task"
    (entry,) = book.entries
    assert (entry.prompt_tokens, entry.completion_tokens, entry.usage_known) == (3, 2, True)
    assert written(metrics) == 1


@pytest.mark.parametrize("waits_for", ["replica", "ledger"])
async def test_whoever_settles_may_be_cut_off(
    settlements: Settlements, book: Book, metrics: RouterMetrics, waits_for: str
) -> None:
    record, answer = cancelled(book)
    if waits_for == "ledger":
        answer.on_end(End(prompt_tokens=3))
    task = asyncio.create_task(settlements.settle(record))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    if waits_for == "replica":
        answer.on_end(End(prompt_tokens=3))
    book.written.set()
    await settlements.close()
    (entry,) = book.entries
    assert (entry.prompt_tokens, entry.usage_known) == (3, True)
    assert written(metrics) == 1


async def test_a_replica_that_says_nothing_is_waited_for_a_moment(
    settlements: Settlements, book: Book, metrics: RouterMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "CLOSING_S", 0.01)
    record, _ = cancelled(book)
    book.written.set()
    await asyncio.wait_for(settlements.settle(record), 5)
    (entry,) = book.entries
    assert not entry.usage_known
    assert written(metrics) == 1


async def test_a_router_that_closes_does_not_wait_for_ever(
    settlements: Settlements, book: Book, metrics: RouterMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "CLOSING_S", 0.01)
    record, answer = cancelled(book)
    task = asyncio.create_task(settlements.settle(record))
    await asyncio.sleep(0)
    answer.on_end(End(prompt_tokens=3))
    await asyncio.wait_for(settlements.close(), 5)  # although the ledger has not said a word
    assert [entry.prompt_tokens for entry in book.entries] == [3]
    assert written(metrics) == 1
    await asyncio.wait([task])
