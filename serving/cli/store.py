"""`serving store` and `serving keys bootstrap`: work on the store itself, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

from serving.cli import output
from serving.cli.client import CommandError

if TYPE_CHECKING:
    from serving.store.engine import Store

T = TypeVar("T")

# Routers look for new keys each second (`serving/accounts/follow.py`); a busy one is later.
KNOWN_S = 2.0

STORE = click.option(
    "--store",
    "url",
    envvar="SERVING_STORE_URL",
    show_envvar=True,
    help="Where the store is.  [default: that of the `serving up` on --port]",
)
PORT = click.option(
    "--port",
    default=8000,
    show_default=True,
    help="The port of the `serving up` whose store is meant.",
)


@click.group(
    epilog="""\b
Examples:
  serving store status
  SERVING_STORE_URL=postgresql://serving@db/serving serving store upgrade
"""
)
def store() -> None:
    """Look after the database of accounts and keys."""


@store.command()
@STORE
@PORT
def status(url: str | None, port: int) -> None:
    """Show where the store is and which version its schema has; 1 if it is behind."""

    async def look(at: Store) -> bool:
        found = await at.status()
        current = found.current or "none"
        output.write_line(f"store    {at.shown}\nschema   {current}\nprogram  {found.head}")
        if found.missing:
            output.write_line(f"missing  {', '.join(found.missing)}")
        return not found.missing

    if not _run(url, port, look):
        raise click.exceptions.Exit(1)


@store.command()
@STORE
@PORT
def upgrade(url: str | None, port: int) -> None:
    """Bring the store's schema up to date. Many may do so at once."""

    async def run(at: Store) -> None:
        before = await at.upgrade()
        for each in before.missing:
            output.write_line(f"done     {each}")
        output.write_line(f"schema   {before.current if before.newer else before.head}")

    _run(url, port, run)


@click.command()
@click.option("--name", default="bootstrap", show_default=True, help="What it is for.")
@STORE
@PORT
def bootstrap(name: str, url: str | None, port: int) -> None:
    """Make an admin key on the store itself, and print it: it is never shown again.

    Whoever can write the store can do this; the other commands want an admin key. It ends when
    every router that runs knows the key, two seconds later.
    """

    async def make(at: Store) -> None:
        from serving.accounts.bootstrap import make_admin_key

        row, text = await make_admin_key(at, name)
        click.echo(f"{row.id} in {at.shown}; keep the key: it is not shown again", err=True)
        output.write_line(text)
        await asyncio.sleep(KNOWN_S)

    _run(url, port, make)


def _run(url: str | None, port: int, work: Callable[[Store], Awaitable[T]]) -> T:
    # Imported late: the other commands need no database.
    from serving.store.engine import Store, StoreAway
    from serving.store.local import local_store_url
    from serving.store.migrate import SchemaError

    async def opened() -> T:
        at = Store(url or local_store_url(port))
        try:
            return await work(at)
        finally:
            await at.close()

    try:
        return asyncio.run(opened())
    except (ValueError, StoreAway, SchemaError) as error:
        raise CommandError(str(error)) from error
