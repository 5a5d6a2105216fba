"""`serving accounts`: who may call."""

from __future__ import annotations

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
from serving.cli.options import client_options
from serving.cli.output import Json

ACCOUNTS = "/v4/admin/accounts"
ACCOUNT_COLUMNS = ("ACCOUNT", "NAME", "ENFORCEMENT", "WEIGHT", "STATE", "CREATED")
WEIGHT = click.option(
    "--weight", type=click.FloatRange(0.001, 1000), help="Its share of an engine's turns."
)


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
    found = list(pages(api, ACCOUNTS))
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
    answer = send(api, "POST", ACCOUNTS, **fields)
    show(answer, as_json, ACCOUNT_COLUMNS, _account_row)


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
    changes = given(name=name, enforcement=enforcement, disabled=disabled, weight=weight)
    if changes.get("enforcement") == "default":
        changes["enforcement"] = None
    answer = send(api, "PATCH", f"{ACCOUNTS}/{quote(account, safe='')}", **changes)
    show(answer, as_json, ACCOUNT_COLUMNS, _account_row)


@accounts.command("quota", epilog=QUOTA_HELP.format(what="accounts", name="acme"))
@click.argument("account")
@click.argument("limits", nargs=-1, metavar="[LIMIT=VALUE]...")
@AS_JSON
@client_options(default_timeout=30.0)
def account_quota(api: Api, account: str, limits: tuple[str, ...], as_json: bool) -> None:
    """Set and show how much an account may use."""
    set_and_show_quota(api, f"{ACCOUNTS}/{quote(account, safe='')}", limits, as_json)


def _account_row(account: Json) -> tuple[Any, ...]:
    state = "disabled" if account["disabled"] else "active"
    created = minute(account["created_at"])
    weight = None if account["weight"] is None else f"{account['weight']:g}"
    return account["id"], account["name"], account["enforcement"], weight, state, created
