"""`serving usage`: what was used, as a table and as a chart. A client of `/v4/usage`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import click

from serving.cli import output
from serving.cli.client import Api, expected_shape
from serving.cli.durations import read_moment, seconds_of
from serving.cli.options import client_options
from serving.cli.output import Json

USAGE = "/v4/usage"
BY = ("account", "key", "model", "served_model", "outcome", "hour", "day")
COUNTS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "total_tokens")
BAR = 40
# An eighth of a cell each (Unicode's block elements).
_EIGHTHS = " ▏▎▍▌▋▊▉█"


@click.command(
    epilog="""\b
Examples:
  serving usage                                   the last 30 days, by day
  serving usage --by account,model --last 7d
  serving usage --account acme --by hour --last 24h
  serving usage --from 2026-11-01 --to 2026-12-01 --by account --csv > november.csv

\b
An admin key sees all usage; a key of an account sees that account's; a key without
an account sees what was done with it.
"""
)
@click.option("--by", default="day", show_default=True, help=f"Some of {', '.join(BY)}.")
@click.option("--last", default="30d", show_default=True, help="90d, 12h, 30m: until now.")
@click.option("--from", "since", callback=read_moment, help="A date or a time, instead of --last.")
@click.option("--to", "until", callback=read_moment, help="A date or a time.  [default: now]")
@click.option("--account", help="Only this account's.")
@click.option("--key", help="Only what was done with the key of this ID.")
@click.option("--model", help="Only requests that asked for this model ID.")
@click.option("--csv", "as_csv", is_flag=True, help="Print it for spreadsheets.")
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
@client_options(default_timeout=30.0)
def usage(
    api: Api,
    by: str,
    last: str,
    since: str | None,
    until: str | None,
    account: str | None,
    key: str | None,
    model: str | None,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Show what was used: requests and tokens."""
    groups = [name.strip() for name in by.split(",") if name.strip()]
    if unknown := [name for name in groups if name not in BY]:
        raise click.BadParameter(f"'{unknown[0]}' is none of {', '.join(BY)}", param_hint="'--by'")
    now = datetime.now(UTC)
    if until is None:
        # Sums are by whole hours: the present one counts too.
        until = (now + timedelta(hours=1)).isoformat()
    if since is None:
        since = (now - timedelta(seconds=seconds_of(last))).isoformat()
    query = {
        "group_by": ",".join(groups),
        "start_date": since,
        "end_date": until,
        "account_id": account,
        "key": key,
        "model": model,
        "format": "csv" if as_csv else None,
    }
    path = f"{USAGE}?{urlencode({name: value for name, value in query.items() if value})}"
    if as_csv:
        with api.request("GET", path) as response:
            output.write(response.read().decode())
        return
    answer = api.json("GET", path)
    if as_json:
        output.write_line(output.one_line(answer))
        return
    with expected_shape(f"GET {USAGE}"):
        text = shown(answer, groups)
    output.write_line(text)


def shown(answer: Json, groups: Sequence[str]) -> str:
    """A table with a row for each group, its tokens as a bar, and the total below."""
    items, total = answer["items"], answer["total"]
    headers = [*(name.replace("_", " ").upper() for name in (*groups, *COUNTS)), ""]
    most = max((item["total_tokens"] for item in items), default=0)
    rows = [
        [
            *(_cell(name, item[name]) for name in groups),
            *(item[name] for name in COUNTS),
            bar(item["total_tokens"], most),
        ]
        for item in items
    ]
    if groups:
        names = ["total", *[""] * (len(groups) - 1)]
        rows.append([*names, *(total[name] for name in COUNTS), ""])
    lines = [output.table(headers, rows)]
    if not items:
        lines = ["nothing was used in this time"]
    if total["usage_unknown"]:
        lines.append(
            f"{total['usage_unknown']} requests more ended before their engine could say what they "
            "had used"
        )
    return "\n".join(lines)


def bar(value: int, most: int) -> str:
    """A bar of up to `BAR` cells."""
    eighths = round(8 * BAR * value / most) if most else 0
    return (_EIGHTHS[8] * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def _cell(name: str, value: object) -> object:
    if name in ("hour", "day"):
        at = datetime.fromisoformat(str(value))
        return f"{at:%Y-%m-%d %H:%M}" if name == "hour" else f"{at:%Y-%m-%d}"
    return value or "-"
