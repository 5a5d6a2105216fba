"""The ledger before and after a run, and what was charged for it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from email.message import Message
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from loadtests.measure.aggregate import Aggregate
from loadtests.measure.ledger import Ledger, Sums, Usage, from_ledger
from loadtests.measure.reconcile import reconcile
from loadtests.measure.record import Outcome, Record
from loadtests.measure.scrape import Snapshot
from loadtests.measure.summary import Count
from tests.unit.loadtests.measure.records import failed, streamed

NOTHING = Snapshot(0.0, {})
URL = "http://service/v4/usage"


def row(requests: int = 1, prompt: int = 10, completion: int = 3, unknown: int = 0) -> Sums:
    return Sums(requests, prompt, completion, unknown)


class Books:
    """A service's page of usage."""

    def __init__(self, **sums: Sums) -> None:
        self.rows = {("m", "acme", outcome): each for outcome, each in sums.items()}
        self.asked: list[tuple[dict[str, list[str]], Mapping[str, str]]] = []
        self.most = 100

    def fetch(self, url: str, headers: Mapping[str, str]) -> bytes:
        query = parse_qs(urlsplit(url).query)
        self.asked.append((query, headers))
        names = query["group_by"][0].split(",")
        if len(names) > 1 and len(self.rows) > self.most:
            said = json.dumps({"error": {"message": "that is more than 100 rows"}}).encode()
            raise HTTPError(url, 400, "Bad Request", Message(), io.BytesIO(said))
        usage = Usage(self.rows) if len(names) > 1 else Usage(self.rows).without_names()
        items = [
            {
                **dict(zip(("model", "account", "outcome"), key, strict=True)),
                "requests": sums.requests,
                "prompt_tokens": sums.prompt_tokens,
                "completion_tokens": sums.completion_tokens,
                "usage_unknown": sums.unknown,
                "images": 0,
            }
            for key, sums in usage.rows.items()
        ]
        return json.dumps({"items": items}).encode()


def compare(before: Usage, after: Usage, *records: Record) -> dict[str, Count]:
    aggregate = Aggregate({}, {})
    for record in records:
        aggregate.add(record)
    counts = reconcile(NOTHING, NOTHING, aggregate, [from_ledger(before, after)])
    assert {count.source for count in counts} == {"the ledger"}
    names = (filter(None, (c.what, c.model, c.account)) for c in counts)
    return dict(zip(map(" ".join, names), counts, strict=True))


def findings(counts: Mapping[str, Count]) -> dict[str, int]:
    return {what: count.unexplained for what, count in counts.items() if count.unexplained}


async def test_it_is_read_from_an_hour_before_the_run_with_its_key() -> None:
    books = Books(ok=row(2, 20, 6))
    ledger = Ledger(f"{URL}?account_id=acme", "sk-reads", fetch=books.fetch, wall=lambda: 7300.0)
    usage = await ledger.read()
    assert usage == Usage({("m", "acme", "ok"): Sums(2, 20, 6, 0)})
    ((query, headers),) = books.asked
    assert query == {
        "account_id": ["acme"],
        "start_date": ["1970-01-01T01:00:00+00:00"],
        "group_by": ["model,account,outcome"],
    }
    assert headers["x-api-key"] == "sk-reads"


async def test_what_the_service_says_is_told() -> None:
    def fetch(url: str, headers: Mapping[str, str]) -> bytes:
        said = json.dumps({"error": {"message": "this key may not"}}).encode()
        raise HTTPError(url, 403, "Forbidden", Message(), io.BytesIO(said))

    ledger = Ledger(URL, fetch=fetch)
    assert await ledger.read() is None
    assert ledger.trouble == "403: this key may not"


@pytest.mark.parametrize("page", [b"<html>", b"[]", b'{"items": [{}]}'])
async def test_a_page_of_something_else_is_told(page: bytes) -> None:
    ledger = Ledger(URL, fetch=lambda *_: page)
    assert await ledger.read() is None
    assert ledger.trouble


async def test_it_waits_for_entries_that_are_under_way() -> None:
    books = Books(ok=row(5))
    before = Usage(dict(books.rows))
    reads = [0]

    def fetch(url: str, headers: Mapping[str, str]) -> bytes:
        reads[0] += 1
        books.rows["m", "acme", "ok"] = row(5 + min(reads[0], 3))
        return books.fetch(url, headers)

    after = await Ledger(URL, fetch=fetch).settle(before, 2, quiet_s=0.01, every_s=0)
    assert after is not None
    assert after.requests == 8
    assert reads[0] > 3, "until it stands still"
    # Entries that never come are not waited for without end.
    after = await Ledger(URL, fetch=books.fetch).settle(before, 99, timeout_s=0.01, every_s=0)
    assert after is not None


async def test_more_models_than_it_can_list_are_compared_in_total() -> None:
    books = Books()
    books.rows = {(f"m-{n}", "", "ok"): row() for n in range(101)}
    coarse = await Ledger(URL, fetch=books.fetch).read()
    assert coarse == Usage({("", "", "ok"): row(101, 1010, 303)}, coarse=True)
    records = [streamed(n, model=f"m-{n}") for n in range(101)]
    assert findings(compare(Usage(), coarse, *records)) == {}
    # There were few of them before the run.
    fine = Usage({("m-0", "", "ok"): row()})
    counts = compare(fine, coarse, *records[1:])
    assert findings(counts) == {}
    assert counts["requests"].note == ""


def test_the_difference_is_the_runs_to_the_token() -> None:
    others = {("old", "", "error"): row(9)}
    before = Usage({("m", "", "ok"): row(7, 70, 21), **others})
    failures = {**others, ("m", "", "error"): row(1, 0, 0)}
    after = Usage({("m", "", "ok"): row(9, 90, 27), **failures})
    records = [streamed(), streamed(1), failed(2, 500)]
    counts = compare(before, after, *records)
    assert findings(counts) == {}
    assert (counts["requests"].server, counts["prompt tokens"].server) == (3, 20)
    fewer = Usage({("m", "", "ok"): row(9, 90, 26), **failures})
    assert findings(compare(before, fewer, *records)) == {"completion tokens": 1}


def test_custom_ids_are_charged_under_their_own_names() -> None:
    after = Usage({("base", "", "ok"): row(), ("base.custom", "", "ok"): row(completion=4)})
    counts = compare(Usage(), after, streamed(model="base"), streamed(1, model="base.custom"))
    assert findings(counts) == {"completion tokens": 1, "completion tokens base.custom": 1}


def test_what_was_never_admitted_is_not_in_it() -> None:
    answered = {("m", "", "ok"): row()}
    records = [streamed(), failed(1, 401), failed(2, 429), failed(3, 404)]
    after = Usage({**answered, ("x", "", "rejected"): row(1, 0, 0)})
    counts = compare(Usage(), after, *records)
    assert findings(counts) == {}
    assert "never admitted" in counts["requests"].note
    # An answer that is missing is not one of them.
    missing = findings(compare(Usage(), Usage(answered), streamed(), streamed(1)))
    assert missing == {"requests": 1, "requests ok": 1, "prompt tokens": 10, "completion tokens": 3}


def test_callers_that_left_are_charged_what_the_engine_made() -> None:
    unseen = {"usage_seen": False, "prompt_tokens": 0, "completion_tokens": 0}
    left = streamed(outcome=Outcome.CANCELLED, **unseen)
    counts = compare(Usage(), Usage({("m", "", "cancelled"): row(1, 10, 5)}), left)
    assert findings(counts) == {}
    assert counts["completion tokens"].explained == 2


def test_accounts_are_compared_where_the_service_has_them() -> None:
    records = [streamed(account="a"), streamed(1, account="b"), streamed(2, account="b")]
    rows = {("m", "a", "ok"): row(), ("m", "b", "ok"): row(2, 20, 5)}
    counts = compare(Usage(), Usage(rows), *records)
    assert findings(counts) == {"completion tokens": 1, "completion tokens b": 1}
    assert counts["requests b"].account == "b"
    other: dict[Any, Sums] = {("m", "acme", "ok"): row(3, 30, 9)}
    counts = compare(Usage(), Usage(other), *records)
    assert findings(counts) == {}
    assert "accounts are not compared" in counts["requests"].note
    assert "requests b" not in counts


def test_it_is_kept_in_the_state_of_a_shard() -> None:
    usage = Usage({("m", "acme", "ok"): row(2, 20, 6, 1)})
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(usage), type=Usage) == usage
