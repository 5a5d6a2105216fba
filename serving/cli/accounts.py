"""`serving accounts` and `serving keys`: who may call. Clients of the admin API, but for the first
key, which `serving keys bootstrap` makes on the store itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

import click

from serving.cli import output
from serving.cli.client import Api, expected_shape
from serving.cli.options import client_options
from serving.cli.output import Json
from serving.cli.store import bootstrap

ACCOUNTS, KEYS = "/v4/admin/accounts", "/v4/admin/keys"
PAGE_ITEMS = 1000
ACCOUNT_COLUMNS = ("ACCOUNT", "NAME", "ENFORCEMENT", "WEIGHT", "STATE", "CREATED")
KEY_COLUMNS = ("KEY", "NAME", "ACCOUNT", "ROLE", "STATE", "LIMITS", "EXPIRES", "LAST USED")
QUOTA_COLUMNS = ("LIMIT", "VALUE", "USED", "BEGINS ANEW")
LIMITS = ("models", "endpoints", "networks", "priorities")
_DURATION = re.compile(r"(\d{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
WEIGHT = click.option(
    "--weight", type=click.FloatRange(0.001, 1000), help="Its share of an engine's turns."
)


def seconds_of(text: str) -> int:
    """The seconds of `90d`, `12h`, `30m` or `45s`. Raises `BadParameter`."""
    if (found := _DURATION.fullmatch(text)) is None:
        raise click.BadParameter("write it as 90d, 12h, 30m or 45s")
    return int(found[1]) * _SECONDS[found[2]]


def read_duration(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    return None if value is None else seconds_of(value)


def read_moment(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A time from now, or a date, as the API has it."""
    if value is None:
        return None
    if _DURATION.fullmatch(value):
        try:
            return (datetime.now(UTC) + timedelta(seconds=seconds_of(value))).isoformat()
        except OverflowError:
            raise click.BadParameter("that is too far away") from None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter("write it as 90d, 12h or 2027-01-31T00:00:00Z") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()


@click.group(
    epilog="""\b
Examples:
  serving accounts create acme --name "Acme, Inc."
  serving accounts change acme --enforcement warn
  serving accounts change acme --disable         its keys are refused within two seconds
  serving accounts change acme --weight 4        four times another's turns
  serving accounts quota acme tokens_per_day=1000000

\b
ENFORCEMENT says what happens to a completion of the account's keys that does not
name the account: off, warn, enforce; - : the key's account will do. WEIGHT is its share
of an engine's turns where requests wait, as a multiple of others'; - : 1.
"""
)
def accounts() -> None:
    """Manage accounts (with an admin key)."""


@accounts.command("list")
@AS_JSON
@client_options(default_timeout=30.0)
def list_accounts(api: Api, as_json: bool) -> None:
    """List the accounts."""
    found = list(_pages(api, ACCOUNTS))
    with expected_shape(f"GET {ACCOUNTS}"):
        text = output.table(ACCOUNT_COLUMNS, map(_account_row, found))
    output.write_line(output.one_line(found) if as_json else text)


@accounts.command("create")
@click.argument("account")
@click.option("--name", help="What people call it.  [default: ACCOUNT]")
@click.option("--enforcement", type=click.Choice(["off", "warn", "enforce"]))
@WEIGHT
@AS_JSON
@client_options(default_timeout=30.0)
def create_account(
    api: Api,
    account: str,
    name: str | None,
    enforcement: str | None,
    weight: float | None,
    as_json: bool,
) -> None:
    """Make an account."""
    fields = {"id": account, "name": name, "enforcement": enforcement, "weight": weight}
    answer = _send(api, "POST", ACCOUNTS, **fields)
    _show(answer, as_json, ACCOUNT_COLUMNS, _account_row)


@accounts.command("change")
@click.argument("account")
@click.option("--name", help="What people call it.")
@click.option(
    "--enforcement",
    type=click.Choice(["off", "warn", "enforce", "default"]),
    help="`default`: as the installation has it.",
)
@click.option("--disable/--enable", "disabled", default=None, help="Refuse its keys, or not.")
@WEIGHT
@AS_JSON
@client_options(default_timeout=30.0)
def change_account(
    api: Api,
    account: str,
    name: str | None,
    enforcement: str | None,
    disabled: bool | None,
    weight: float | None,
    as_json: bool,
) -> None:
    """Change an account."""
    changes = _given(name=name, enforcement=enforcement, disabled=disabled, weight=weight)
    if changes.get("enforcement") == "default":
        changes["enforcement"] = None
    answer = _send(api, "PATCH", f"{ACCOUNTS}/{quote(account, safe='')}", **changes)
    _show(answer, as_json, ACCOUNT_COLUMNS, _account_row)


_QUOTA_HELP = """\b
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


@accounts.command("quota", epilog=_QUOTA_HELP.format(what="accounts", name="acme"))
@click.argument("account")
@click.argument("limits", nargs=-1, metavar="[LIMIT=VALUE]...")
@AS_JSON
@client_options(default_timeout=30.0)
def account_quota(api: Api, account: str, limits: tuple[str, ...], as_json: bool) -> None:
    """Set and show how much an account may use."""
    _quota(api, f"{ACCOUNTS}/{quote(account, safe='')}", limits, as_json)


@click.group(
    epilog="""\b
Examples:
  serving keys bootstrap                         the first admin key, on the store itself
  serving keys create --account acme --name web --expires 90d
  serving keys create --model 'tiny-*' --endpoint '/v1/*' --network 10.0.0.0/8
  serving keys rotate svk_4rDoXpGVJ2aM --overlap 12h
  serving keys revoke svk_4rDoXpGVJ2aM           refused everywhere within two seconds

\b
Roles:
  read   may look: GET only
  use    may use the API
  admin  may also manage accounts and keys
"""
)
def keys() -> None:
    """Manage API keys (with an admin key)."""


keys.add_command(bootstrap)


def _limit_options(command: Callable[..., None]) -> Callable[..., None]:
    for name, plural, what in (
        ("priority", "priorities", "Only requests of this priority: interactive or batch."),
        ("network", "networks", "Only from this network, as 10.0.0.0/8."),
        ("endpoint", "endpoints", "Only at this path; * stands for anything."),
        ("model", "models", "Only this model; * stands for anything."),
    ):
        option = click.option(
            f"--{name}", plural, multiple=True, metavar="PATTERN", help=f"{what} Repeatable."
        )
        command = option(command)
    return command


@keys.command("list")
@click.option("--account", help="Only those of this account.")
@AS_JSON
@client_options(default_timeout=30.0)
def list_keys(api: Api, account: str | None, as_json: bool) -> None:
    """List the keys, the newest first."""
    found = list(_pages(api, KEYS, **_given(account_id=account)))
    with expected_shape(f"GET {KEYS}"):
        text = output.table(KEY_COLUMNS, map(_key_row, found))
    output.write_line(output.one_line(found) if as_json else text)


@keys.command("create")
@click.option("--name", default="", help="What it is for.")
@click.option("--account", help="Its account.  [default: it may use any]")
@click.option(
    "--role", type=click.Choice(["read", "use", "admin"]), default="use", show_default=True
)
@click.option("--expires", callback=read_moment, metavar="WHEN", help="90d, 12h or a date.")
@_limit_options
@AS_JSON
@client_options(default_timeout=30.0)
def create_key(
    api: Api,
    name: str,
    account: str | None,
    role: str,
    expires: str | None,
    as_json: bool,
    **limits: tuple[str, ...],
) -> None:
    """Make a key, and print it: it is never shown again."""
    fields = _given(account_id=account, expires_at=expires)
    fields |= {kind: list(given) for kind, given in limits.items() if given}
    _show_secret(_send(api, "POST", KEYS, name=name, role=role, **fields), as_json)


@keys.command("change")
@click.argument("key")
@click.option("--name", help="What it is for.")
@click.option("--role", type=click.Choice(["read", "use", "admin"]))
@click.option("--expires", callback=read_moment, metavar="WHEN", help="90d, 12h or a date.")
@click.option("--no-expiry", is_flag=True, help="It does not end.")
@_limit_options
@click.option(
    "--no-limit",
    "freed",
    multiple=True,
    type=click.Choice(LIMITS),
    help="Take this limit away. Repeatable.",
)
@AS_JSON
@client_options(default_timeout=30.0)
def change_key(
    api: Api,
    key: str,
    name: str | None,
    role: str | None,
    expires: str | None,
    no_expiry: bool,
    freed: tuple[str, ...],
    as_json: bool,
    **limits: tuple[str, ...],
) -> None:
    """Change a key. A limit that is given replaces the one of its kind."""
    changes: Json = _given(name=name, role=role, expires_at=expires)
    if no_expiry:
        changes["expires_at"] = None
    changes |= {kind: list(given) for kind, given in limits.items() if given}
    changes |= dict.fromkeys(freed)
    _show(_send(api, "PATCH", _key_path(key), **changes), as_json, KEY_COLUMNS, _key_row)


@keys.command("rotate")
@click.argument("key")
@click.option(
    "--overlap",
    callback=read_duration,
    default="1d",
    show_default=True,
    help="How long the old secret is good beside the new one: 1d, 12h, 0s.",
)
@AS_JSON
@client_options(default_timeout=30.0)
def rotate_key(api: Api, key: str, overlap: int, as_json: bool) -> None:
    """Give a key a new secret, and print it: it is never shown again."""
    _show_secret(_send(api, "POST", f"{_key_path(key)}/rotate", overlap_s=overlap), as_json)


@keys.command("revoke")
@click.argument("key")
@AS_JSON
@client_options(default_timeout=30.0)
def revoke_key(api: Api, key: str, as_json: bool) -> None:
    """Revoke a key, for ever."""
    _show(_send(api, "POST", f"{_key_path(key)}/revoke"), as_json, KEY_COLUMNS, _key_row)


@keys.command("quota", epilog=_QUOTA_HELP.format(what="keys", name="svk_4rDoXpGVJ2aM"))
@click.argument("key")
@click.argument("limits", nargs=-1, metavar="[LIMIT=VALUE]...")
@AS_JSON
@client_options(default_timeout=30.0)
def key_quota(api: Api, key: str, limits: tuple[str, ...], as_json: bool) -> None:
    """Set and show how much a key may use (what it may reach is set by `change`)."""
    _quota(api, _key_path(key), limits, as_json)


def _quota(api: Api, path: str, limits: tuple[str, ...], as_json: bool) -> None:
    if limits:
        _send(api, "PATCH", path, quota=dict(map(_limit, limits)))
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
    return name, str(value), used.get("used"), _minute(used.get("resets_at"))


def _key_path(key: str) -> str:
    """The path of a key. Who gives a whole key means its ID; the secret is not sent in a URL."""
    match = re.fullmatch(r"(svk_[0-9A-Za-z]{12})_[0-9A-Za-z]+", key)
    return f"{KEYS}/{quote(match[1] if match else key, safe='')}"


def _given(**fields: Any) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


def _send(api: Api, method: str, path: str, **fields: Any) -> Json:
    return api.json(method, path, json.dumps(fields).encode())


def _pages(api: Api, path: str, **query: Any) -> Iterator[Json]:
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


def _show(
    answer: Json, as_json: bool, columns: tuple[str, ...], row: Callable[[Json], tuple[Any, ...]]
) -> None:
    with expected_shape("the admin API"):
        text = output.table(columns, [row(answer)])
    output.write_line(output.one_line(answer) if as_json else text)


def _show_secret(answer: Json, as_json: bool) -> None:
    """The key alone on stdout, for a pipe; what it is on stderr."""
    with expected_shape("the admin API"):
        text, key = output.table(KEY_COLUMNS, [_key_row(answer)]), str(answer["key"])
    if as_json:
        output.write_line(output.one_line(answer))
        return
    click.echo(f"{text}\nkeep the key: it is not shown again", err=True)
    output.write_line(key)


def _account_row(account: Json) -> tuple[Any, ...]:
    state = "disabled" if account["disabled"] else "active"
    created = _minute(account["created_at"])
    weight = None if account["weight"] is None else f"{account['weight']:g}"
    return account["id"], account["name"], account["enforcement"], weight, state, created


def _key_row(key: Json) -> tuple[Any, ...]:
    limits = " ".join(f"{n}={','.join(key[n])}" for n in LIMITS if key.get(n) is not None)
    ends, used = _minute(key["expires_at"]), _minute(key["last_used_at"])
    said = (key["name"] or None, key["account_id"], key["role"], key["state"], limits or None)
    return key["id"], *said, ends, used


def _minute(at: str | None) -> str | None:
    return None if at is None else at[:16].replace("T", " ")
