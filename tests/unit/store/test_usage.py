"""Usage is read as it was written, whatever it is grouped by."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs

from serving.store.engine import Store
from serving.store.entry import Entry
from serving.store.ledger import StoredLedger
from serving.store.usage import Span, Usage, month_of
from tests.unit.accounts.ledger.conftest import ENTRY

START = datetime(2026, 10, 30, 22, tzinfo=UTC)
ALL = Span(START, START + timedelta(days=10))


def some(count: int) -> list[Entry]:
    rng = random.Random(5)
    return [
        structs.replace(
            ENTRY,
            ended_at=START.timestamp() + rng.randrange(5 * 86400),
            account=rng.choice("ab"),
            key_id=rng.choice("kl"),
            model=rng.choice("xyz"),
            outcome=rng.choice(("ok", "error")),
            prompt_tokens=rng.randrange(100),
            completion_tokens=rng.randrange(100),
        )
        for _ in range(count)
    ]


@pytest.fixture
async def usage(store: Store) -> Usage:
    entries = some(300)
    await StoredLedger(store).ship("j", 0, list(enumerate(entries, 1)))
    return Usage(store)


def moment(entry: Entry) -> datetime:
    return datetime.fromtimestamp(entry.ended_at, UTC)


async def test_sums_by_anything_are_those_of_the_entries(usage: Usage) -> None:
    entries = some(300)
    (total,) = await usage.sums(ALL)
    assert total["requests"] == 300
    assert total["prompt_tokens"] == sum(entry.prompt_tokens for entry in entries)
    assert total["total_s"] == pytest.approx(90)
    keys: dict[str, Callable[[Entry], object]] = {
        "account": lambda entry: entry.account,
        "key_id": lambda entry: entry.key_id,
        "model": lambda entry: entry.model,
        "outcome": lambda entry: entry.outcome,
        "hour": lambda entry: moment(entry).replace(minute=0, second=0),
        "day": lambda entry: moment(entry).replace(hour=0, minute=0, second=0),
    }
    for by in (
        ["account"],
        ["day"],
        ["hour"],
        ["hour", "model"],
        ["hour", "account"],
        ["model", "outcome"],
        ["day", "key_id", "account"],
    ):
        rows = await usage.sums(ALL, by)  # type: ignore[arg-type]
        found = {tuple(row[name] for name in by): row["completion_tokens"] for row in rows}
        expected: Counter[tuple[object, ...]] = Counter()
        for entry in entries:
            expected[tuple(keys[name](entry) for name in by)] += entry.completion_tokens
        assert found == {key: n for key, n in expected.items() if key in found}
        assert list(found) == sorted(expected)


async def test_a_span_leaves_out_the_others(usage: Usage) -> None:
    entries = some(300)
    until = START + timedelta(days=2)
    span = Span(START + timedelta(days=1), until, account="a", model="x", key_id="k")
    wanted = [
        entry
        for entry in entries
        if (entry.account, entry.model, entry.key_id) == ("a", "x", "k")
        and span.since <= moment(entry) < until
    ]
    assert wanted
    (total,) = await usage.sums(span)
    assert total["requests"] == len(wanted)
    assert len(await usage.entries(span)) == len(wanted)
    (nothing,) = await usage.sums(Span(START, START))
    assert nothing["requests"] == 0


async def test_entries_come_in_pieces_and_in_order(usage: Usage) -> None:
    found: list[dict[str, object]] = []
    after = None
    while piece := await usage.entries(ALL, after, limit=37):
        found += piece
        after = (piece[-1]["ended_at"], piece[-1]["journal"], piece[-1]["number"])
    assert sorted(row["number"] for row in found) == list(range(1, 301))  # type: ignore[type-var]
    times = [row["ended_at"] for row in found]
    assert times == sorted(times)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("day", "first", "following"),
    [("2026-12-31", "2026-12-01", "2027-01-01"), ("2028-02-29", "2028-02-01", "2028-03-01")],
)
def test_months(day: str, first: str, following: str) -> None:
    found = month_of(datetime.fromisoformat(day + "T23:59:59+00:00"))
    assert [f"{each:%Y-%m-%d}" for each in found] == [first, following]
