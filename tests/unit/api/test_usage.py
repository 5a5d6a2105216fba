"""Who may see whose usage, and in which form."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from serving.api import usage
from serving.api.usage import Inquiry, Place, Wanted
from serving.errors import Forbidden, InvalidField

NOW = datetime(2026, 11, 29, 12, 30, tzinfo=UTC)
ADMIN = Inquiry("root", None, admin=True, now=NOW)
ACME = Inquiry("k1", "acme", admin=False, now=NOW)
LONE = Inquiry("k2", None, admin=False, now=NOW)


class Notes:
    """A ledger that notes what is wanted of it and answers the same rows."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.rows = list(rows)
        self.wanted: list[Wanted] = []
        self.by: Sequence[str] = ()
        self.after: Place | None = None

    async def sums(self, wanted: Wanted, by: Sequence[str], limit: int) -> list[dict[str, Any]]:
        self.wanted.append(wanted)
        self.by = by
        return self.rows[:limit]

    async def entries(
        self, wanted: Wanted, after: Place | None, limit: int
    ) -> list[dict[str, Any]]:
        self.wanted.append(wanted)
        self.after = after
        return [dict(row) for row in self.rows[:limit]]


def row(**own: Any) -> dict[str, Any]:
    counts = dict.fromkeys(
        ("requests", "usage_unknown", "prompt_tokens", "cached_tokens", "completion_tokens"), 1
    )
    return counts | {"images": 0, "total_s": 0.5} | own


def ask(inquiry: Inquiry, **query: str) -> Inquiry:
    return replace(inquiry, query=urlencode(query).encode())


async def test_sums_are_of_the_last_days_by_default() -> None:
    notes = Notes(row())
    page = json.loads((await usage.usage(notes, ADMIN)).body)
    assert notes.wanted == [Wanted(NOW - timedelta(days=30), NOW)]
    assert page["items"] == [row(total_tokens=2)]
    assert page["total"] == row(total_tokens=2)
    assert page["end_date"] == "2026-11-29T12:30:00+00:00"


async def test_groups_and_filters_are_passed_on() -> None:
    notes = Notes(row(model="m", day=NOW), row(model="n", day=NOW))
    page = await usage.usage(
        notes,
        ask(ADMIN, group_by="model, day,model", account_id="acme", key="k", model="m",
            start_date="2026-11-01", end_date="2026-11-02T03:00:00+02:00"),
    )  # fmt: skip
    assert notes.by == ("model", "day")
    since, until = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 2, 1, tzinfo=UTC)
    assert notes.wanted == [Wanted(since, until, "acme", "k", "m")]
    body = json.loads(page.body)
    assert [item["model"] for item in body["items"]] == ["m", "n"]
    assert body["total"]["requests"] == 2
    assert body["items"][0]["day"] == "2026-11-29T12:30:00+00:00"


@pytest.mark.parametrize(
    ("inquiry", "query", "account", "key"),
    [
        (ADMIN, {}, None, None),
        (ADMIN, {"account_id": "x"}, "x", None),
        (ACME, {}, "acme", None),
        (ACME, {"account_id": "acme", "key": "k9"}, "acme", "k9"),
        (LONE, {}, None, "k2"),
        (LONE, {"key": "k2"}, None, "k2"),
    ],
)
async def test_everybody_sees_what_they_pay_for(
    inquiry: Inquiry, query: dict[str, str], account: str | None, key: str | None
) -> None:
    for report in (usage.usage, usage.entries):
        notes = Notes()
        await report(notes, ask(inquiry, **query))
        assert (notes.wanted[0].account, notes.wanted[0].key) == (account, key)


@pytest.mark.parametrize(
    ("inquiry", "query"),
    [(ACME, {"account_id": "other"}), (LONE, {"account_id": "acme"}), (LONE, {"key": "k1"})],
)
async def test_nobody_sees_anothers(inquiry: Inquiry, query: dict[str, str]) -> None:
    for report in (usage.usage, usage.entries):
        notes = Notes()
        with pytest.raises(Forbidden, match="may not see"):
            await report(notes, ask(inquiry, **query))
        assert notes.wanted == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("group_by", "colour"),
        ("format", "xml"),
        ("start_date", "yesterday"),
        ("start_date", "2026-11-29T13:00:00"),
        ("start_date", "1999-01-01"),
        ("start_date", "0001-01-01T00:00:00+23:00"),
        ("end_date", "\0"),
    ],
)
async def test_a_wrong_parameter_is_named(field: str, value: str) -> None:
    with pytest.raises(InvalidField) as error:
        await usage.usage(Notes(), ask(ADMIN, **{field: value}))
    assert error.value.param == field


async def test_more_rows_than_an_answer_takes_are_refused() -> None:
    with pytest.raises(InvalidField, match="5000 rows"):
        await usage.usage(Notes(*[row()] * (usage.MAX_ROWS + 1)), ADMIN)


async def test_csv_has_a_line_for_each_row_and_no_formulas() -> None:
    notes = Notes(row(model="=cmd()", prompt_tokens=3), row(model='a,"b'))
    page = await usage.usage(notes, ask(ADMIN, group_by="model", format="csv"))
    assert page.content_type.startswith(b"text/csv")
    lines = list(csv.DictReader(io.StringIO(page.body.decode())))
    assert [line["model"] for line in lines] == ["'=cmd()", 'a,"b']
    assert lines[0]["prompt_tokens"] == "3"
    assert lines[0]["total_tokens"] == "4"


def entry(number: int) -> dict[str, Any]:
    return {"ended_at": NOW, "journal": "j", "number": number, "key_id": "k", "model": "m"}


async def test_entries_come_in_pages() -> None:
    notes = Notes(*map(entry, range(1, 4)))
    first = json.loads((await usage.entries(notes, ask(ADMIN, limit="2"))).body)
    assert first["items"] == [{"ended_at": NOW.isoformat(), "key": "k", "model": "m"}] * 2
    last = json.loads((await usage.entries(notes, ask(ADMIN, limit="4", after=first["next"]))).body)
    assert notes.after == (NOW, "j", 2)
    assert last["next"] is None
    as_csv = await usage.entries(notes, ask(ADMIN, limit="3", format="csv"))
    assert as_csv.headers[0][0] == b"x-next"
    assert len(as_csv.body.splitlines()) == 4


@pytest.mark.parametrize("after", ["x", "!!!", "W10=", "WzEsMiwzXQ==", "é", "WyIxIiwgImoiLCAxXQ=="])
async def test_a_place_that_was_not_given_out_is_refused(after: str) -> None:
    with pytest.raises(InvalidField, match="'next'"):
        await usage.entries(Notes(), ask(ADMIN, after=after))


async def test_statistics_are_of_equal_parts() -> None:
    since = datetime(2026, 11, 1, tzinfo=UTC)
    hours = [row(hour=since + timedelta(hours=n), prompt_tokens=n) for n in range(24)]
    notes = Notes(*hours)
    inquiry = ask(ACME, start_date="2026-11-01", end_date="2026-11-02", chunks="3")
    page = json.loads((await usage.statistics(notes, replace(inquiry, name="tiny"))).body)
    assert notes.wanted == [Wanted(since, since + timedelta(days=1), "acme", None, "tiny")]
    parts = [sum(range(start, start + 8)) for start in (0, 8, 16)]
    assert [point["prompt_tokens"] for point in page["data"]] == parts
    assert [point["summary_tokens"] for point in page["data"]] == [part + 8 for part in parts]
    assert page["start_date"] == page["data"][0]["date"] == since.isoformat()
    assert page["end_date"] == page["data"][-1]["date"]


async def test_statistics_are_not_of_an_id_that_no_model_can_have() -> None:
    query = {"start_date": "2026-11-01", "end_date": "2026-11-02", "chunks": "3"}
    with pytest.raises(InvalidField, match="more than 256 characters"):
        await usage.statistics(Notes(), replace(ask(ACME, **query), name="a" * 257))


@pytest.mark.parametrize("missing", ["start_date", "end_date", "chunks"])
async def test_statistics_need_their_parameters(missing: str) -> None:
    query = {"start_date": "2026-11-01", "end_date": "2026-11-02", "chunks": "3"}
    del query[missing]
    with pytest.raises(InvalidField, match=missing):
        await usage.statistics(Notes(), ask(ACME, **query))
