"""What was used: `GET /v4/usage`, its single entries, and a model's statistics in scale-gp's shape.

Whoever may ask is told what it paid for: a key with the role `admin` all of it, a key of an account
that account's, and a key without an account what was done with the key itself.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import parse_qs

from serving.api.completion import MAX_MODEL_ID
from serving.api.excerpt import excerpt
from serving.api.pages import Page, json_page
from serving.errors import Forbidden, InvalidField

BY = ("account", "key", "model", "served_model", "outcome", "hour", "day")
DEFAULT_DAYS, MAX_DAYS = 30, 800
# What is written in some twenty milliseconds, for which all other requests of a router wait.
MAX_ROWS, MAX_ENTRIES = 5000, 1000
MAX_CHUNKS = 1000
_TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens")
# What a spreadsheet takes for a formula, which a caller could have written into a model ID.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Row = dict[str, Any]
Place = tuple[datetime, str, int]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose usage, from `since` on and before `until`; None means all."""

    since: datetime
    until: datetime
    account: str | None = None
    key: str | None = None
    model: str | None = None


class Ledger(Protocol):
    """Where usage is read. Both raise `StoreUnavailable`."""

    async def sums(self, wanted: Wanted, by: Sequence[str], limit: int) -> list[Row]:
        """One row for each combination of `by` that there is, in its order."""

    async def entries(self, wanted: Wanted, after: Place | None, limit: int) -> list[Row]:
        """Entries in the order of their time, those behind `after`."""


@dataclass(frozen=True, slots=True)
class Inquiry:
    """Who asks, and what. `account` is that of the key, `name` the model ID in the path."""

    key_id: str
    account: str | None
    admin: bool
    query: bytes = b""
    name: str = ""
    now: datetime | None = None

    @property
    def given(self) -> Mapping[str, str]:
        """The parameters; the last one of a name counts."""
        found = parse_qs(self.query.decode("latin-1"), keep_blank_values=True)
        return {name: values[-1] for name, values in found.items()}


Report = Callable[[Ledger, Inquiry], Awaitable[Page]]


async def usage(ledger: Ledger, inquiry: Inquiry) -> Page:
    """`GET /v4/usage`: sums, grouped as `group_by` says.

    Raises:
        InvalidField: a parameter has an invalid value.
        Forbidden: another's usage is asked for.
    """
    given = inquiry.given
    wanted, by = _wanted(inquiry, given), _by(given)
    csv_wanted = _as_csv(given)
    rows = await ledger.sums(wanted, by, MAX_ROWS + 1)
    if len(rows) > MAX_ROWS:
        raise InvalidField(
            f"that is more than {MAX_ROWS} rows; ask for a shorter time or fewer groups",
            param="group_by",
        )
    items = [_with_total(row) for row in rows]
    if csv_wanted:
        return _csv(items, [*by, *(name for name in _COLUMNS if name not in by)])
    total = {name: sum(row[name] for row in items) for name in _COLUMNS}
    return json_page(
        {
            "items": [_plain(row) for row in items],
            "total": total,
            "group_by": list(by),
            "start_date": wanted.since.isoformat(),
            "end_date": wanted.until.isoformat(),
        }
    )


async def entries(ledger: Ledger, inquiry: Inquiry) -> Page:
    """`GET /v4/usage/entries`: single requests, the oldest first, in pages: `next` of one is
    `after` of the one behind it, and null at the end. Raises as `usage`."""
    given = inquiry.given
    wanted, limit = _wanted(inquiry, given), _number(given, "limit", MAX_ENTRIES, MAX_ENTRIES)
    after, as_csv = _place(given.get("after")), _as_csv(given)
    rows = await ledger.entries(wanted, after, limit)
    following = _name_of(rows[-1]) if len(rows) == limit else None
    for row in rows:
        del row["journal"], row["number"]
        row["key"] = row.pop("key_id")
    if as_csv:
        page = _csv(rows, list(rows[0]) if rows else [])
        headers = () if following is None else ((b"x-next", following.encode()),)
        return replace(page, headers=headers)
    return json_page({"items": [_plain(row) for row in rows], "next": following})


async def statistics(ledger: Ledger, inquiry: Inquiry) -> Page:
    """`GET /v4/models/{model}/usage-statistics`: sums over `chunks` equal parts of the time, to the
    hour. Raises as `usage`."""
    given = dict(inquiry.given)
    for name in ("start_date", "end_date", "chunks"):
        if name not in given:
            raise InvalidField(f"'{name}': is missing", param=name)
    if len(inquiry.name) > MAX_MODEL_ID:
        raise InvalidField(f"the model has more than {MAX_MODEL_ID} characters", param="model")
    chunks = _number(given, "chunks", 1, MAX_CHUNKS)
    wanted = _wanted(inquiry, given | {"model": inquiry.name})
    length = (wanted.until - wanted.since) / chunks
    starts = [wanted.since + length * number for number in range(chunks)]
    data = [
        {"date": start.isoformat(), "prompt_tokens": 0, "response_tokens": 0, "summary_tokens": 0}
        for start in starts
    ]
    for row in await ledger.sums(wanted, ("hour",), MAX_DAYS * 24 + 1):
        place: Any = data[min(chunks - 1, int((row["hour"] - wanted.since) / length))]
        place["prompt_tokens"] += row["prompt_tokens"]
        place["response_tokens"] += row["completion_tokens"]
        place["summary_tokens"] += row["prompt_tokens"] + row["completion_tokens"]
    first, last = data[0]["date"], data[-1]["date"]
    return json_page({"data": data, "start_date": first, "end_date": last})


# parameters


def _wanted(inquiry: Inquiry, given: Mapping[str, str]) -> Wanted:
    now = inquiry.now or datetime.now(UTC)
    until = _moment(given, "end_date") or now
    since = _moment(given, "start_date") or until - timedelta(days=DEFAULT_DAYS)
    if since >= until:
        raise InvalidField("'start_date': must be before 'end_date'", param="start_date")
    if until - since > timedelta(days=MAX_DAYS):
        raise InvalidField(f"that is more than {MAX_DAYS} days", param="start_date")
    account, key = given.get("account_id") or None, given.get("key") or None
    if not inquiry.admin:
        if account not in (None, inquiry.account):
            raise Forbidden(
                f"this API key may not see account '{excerpt(account)}'", param="account_id"
            )
        account = inquiry.account
        if account is None and key not in (None, inquiry.key_id):
            raise Forbidden("this API key may not see what others have used", param="key")
        key = inquiry.key_id if account is None else key
    return Wanted(since, until, account, key, given.get("model") or None)


def _by(given: Mapping[str, str]) -> tuple[str, ...]:
    names = [name.strip() for name in given.get("group_by", "").split(",") if name.strip()]
    for name in names:
        if name not in BY:
            raise InvalidField(
                f"'group_by': '{excerpt(name)}' is none of {', '.join(BY)}", param="group_by"
            )
    return tuple(dict.fromkeys(names))


def _as_csv(given: Mapping[str, str]) -> bool:
    found = given.get("format", "json")
    if found not in ("json", "csv"):
        raise InvalidField("'format': must be json or csv", param="format")
    return found == "csv"


def _moment(given: Mapping[str, str], name: str) -> datetime | None:
    """A time in ISO 8601; UTC where it names no zone."""
    text = given.get(name)
    if not text:
        return None
    try:
        # In a query an unescaped plus is a space.
        found = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidField(
            f"'{name}': must be a date or a time, as 2026-11-29 or 2026-11-29T12:00:00Z", param=name
        ) from None


def _number(given: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = given.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
        raise InvalidField(f"'{name}': must be a number from 1 to {most}", param=name)
    return int(text)


def _name_of(row: Row) -> str:
    """The place of an entry, as a caller gives it back."""
    place = [row["ended_at"].isoformat(), row["journal"], row["number"]]
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def _place(text: str | None) -> Place | None:
    if not text:
        return None
    try:
        at, journal, number = json.loads(base64.urlsafe_b64decode(text.encode()))
        place = datetime.fromisoformat(at), str(journal), int(number)
    except (ValueError, TypeError, binascii.Error, RecursionError):
        place = None
    if place is None or place[0].tzinfo is None or not 0 <= place[2] < 2**63 or "\0" in place[1]:
        raise InvalidField("'after': must be 'next' of the page before", param="after")
    return place


# answers


_COLUMNS = ("requests", "usage_unknown", *_TOKENS, "total_tokens", "images", "total_s")


def _with_total(row: Row) -> Row:
    return row | {"total_tokens": row["prompt_tokens"] + row["completion_tokens"]}


def _plain(row: Row) -> Row:
    return {name: _text(value) for name, value in row.items()}


def _text(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _csv(rows: Sequence[Row], columns: Sequence[str]) -> Page:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(_text(row[name])) for name in columns])
    return Page(out.getvalue().encode(), content_type=b"text/csv; charset=utf-8")


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
