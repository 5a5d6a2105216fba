"""`serving keys`: the keys of callers. The first one is made on the store itself (`bootstrap`)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import click

from serving.cli import output
from serving.cli.admin import (
    AS_JSON,
    QUOTA_HELP,
    given,
    minute,
    pages,
    send,
    set_and_show_quota,
    show,
)
from serving.cli.client import Api, expected_shape
from serving.cli.durations import read_duration, read_moment
from serving.cli.options import client_options
from serving.cli.output import Json
from serving.cli.store import bootstrap

KEYS = "/v4/admin/keys"
KEY_COLUMNS = ("KEY", "NAME", "ACCOUNT", "ROLE", "STATE", "LIMITS", "EXPIRES", "LAST USED")
LIMITS = ("models", "endpoints", "networks", "priorities")


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
    found = list(pages(api, KEYS, **given(account_id=account)))
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
    fields = given(account_id=account, expires_at=expires)
    fields |= {kind: list(given) for kind, given in limits.items() if given}
    _show_secret(send(api, "POST", KEYS, name=name, role=role, **fields), as_json)


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
    changes: Json = given(name=name, role=role, expires_at=expires)
    if no_expiry:
        changes["expires_at"] = None
    changes |= {kind: list(given) for kind, given in limits.items() if given}
    changes |= dict.fromkeys(freed)
    show(send(api, "PATCH", _key_path(key), **changes), as_json, KEY_COLUMNS, _key_row)


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
    _show_secret(send(api, "POST", f"{_key_path(key)}/rotate", overlap_s=overlap), as_json)


@keys.command("revoke")
@click.argument("key")
@AS_JSON
@client_options(default_timeout=30.0)
def revoke_key(api: Api, key: str, as_json: bool) -> None:
    """Revoke a key, for ever."""
    show(send(api, "POST", f"{_key_path(key)}/revoke"), as_json, KEY_COLUMNS, _key_row)


@keys.command("quota", epilog=QUOTA_HELP.format(what="keys", name="svk_4rDoXpGVJ2aM"))
@click.argument("key")
@click.argument("limits", nargs=-1, metavar="[LIMIT=VALUE]...")
@AS_JSON
@client_options(default_timeout=30.0)
def key_quota(api: Api, key: str, limits: tuple[str, ...], as_json: bool) -> None:
    """Set and show how much a key may use (what it may reach is set by `change`)."""
    set_and_show_quota(api, _key_path(key), limits, as_json)


def _key_path(key: str) -> str:
    """The path of a key. Who gives a whole key means its ID; the secret is not sent in a URL."""
    match = re.fullmatch(r"(svk_[0-9A-Za-z]{12})_[0-9A-Za-z]+", key)
    return f"{KEYS}/{quote(match[1] if match else key, safe='')}"


def _show_secret(answer: Json, as_json: bool) -> None:
    """The key alone on stdout, for a pipe; what it is on stderr."""
    with expected_shape("the admin API"):
        text, key = output.table(KEY_COLUMNS, [_key_row(answer)]), str(answer["key"])
    if as_json:
        output.write_line(output.one_line(answer))
        return
    click.echo(f"{text}\nkeep the key: it is not shown again", err=True)
    output.write_line(key)


def _key_row(key: Json) -> tuple[Any, ...]:
    limits = " ".join(f"{n}={','.join(key[n])}" for n in LIMITS if key.get(n) is not None)
    ends, used = minute(key["expires_at"]), minute(key["last_used_at"])
    said = (key["name"] or None, key["account_id"], key["role"], key["state"], limits or None)
    return key["id"], *said, ends, used
