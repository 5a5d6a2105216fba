"""What `serving accounts` and `serving keys` have in common: the admin API and its answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import click

from serving.cli import output
from serving.cli.client import Api, expected_shape
from serving.cli.output import Json

PAGE_ITEMS = 1000
QUOTA_COLUMNS = ("LIMIT", "VALUE", "USED", "BEGINS ANEW")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
QUOTA_HELP = """\b
Limits:
  requests_per_minute, tokens_per_minute, requests_in_flight
  tokens_per_day, tokens_per_month, cost_per_day, cost_per_month
  without_store=pass|block    beyond a router's lease, while the store is away

\b
Examples:
  serving {what} quota {name} requests_per_minute=600 cost_per_month=25.00
  serving {what} quota {name} cost_per_month=none      takes a limit away
  serving {what} quota {name}                          shows them, and what is used
"""


def given(**fields: Any) -> Json:
    """The fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


def send(api: Api, method: str, path: str, **fields: Any) -> Json:
    """Send the fields as a JSON object; the answer."""
    return api.json(method, path, json.dumps(fields).encode())


def pages(api: Api, path: str, **query: Any) -> Iterator[Json]:
    """Every item of a list, page by page."""
    seen, page = 0, 1
    while True:
        numbered = urlencode({**query, "limit": PAGE_ITEMS, "page": page})
        answer = api.json("GET", f"{path}?{numbered}")
        with expected_shape(f"GET {path}"):
            items, total = list(answer["items"]), int(answer["total_item_count"])
        yield from items
        seen, page = seen + len(items), page + 1
        if not items or seen >= total:
            return


def show(
    answer: Json, as_json: bool, columns: tuple[str, ...], row: Callable[[Json], tuple[Any, ...]]
) -> None:
    """Print an answer as JSON, or as a table of one row."""
    with expected_shape("the admin API"):
        text = output.table(columns, [row(answer)])
    output.write_line(output.one_line(answer) if as_json else text)


def set_and_show_quota(api: Api, path: str, limits: tuple[str, ...], as_json: bool) -> None:
    """Set the limits that are given of an account or a key, and print what it has and has used."""
    if limits:
        send(api, "PATCH", path, quota=dict(map(_limit, limits)))
    answer = api.json("GET", path)
    with expected_shape(f"GET {path}"):
        found, used = answer["quota"] or {}, answer["used"] or {}
        rows = [_quota_row(name, found[name], used.get(name, {})) for name in found]
        text = output.table(QUOTA_COLUMNS, rows)
    output.write_line(output.one_line(answer) if as_json else text)


def _limit(text: str) -> tuple[str, Any]:
    """A limit's name and its value as the API has it. Raises `BadParameter`."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise click.BadParameter("write LIMIT=VALUE, or LIMIT=none")
    if value == "none":
        return name, None
    # Money stays the text that it is.
    return name, int(value) if value.isdecimal() and not name.startswith("cost") else value


def _quota_row(name: str, value: Any, used: Json) -> tuple[Any, ...]:
    return name, str(value), used.get("used"), minute(used.get("resets_at"))


def minute(at: str | None) -> str | None:
    """A moment of the API to the minute, for a table."""
    return None if at is None else at[:16].replace("T", " ")
