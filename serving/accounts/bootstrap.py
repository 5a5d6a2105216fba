"""The first key of an installation, made on the store itself: the admin API wants a key already."""

from __future__ import annotations

import getpass

from serving.accounts.admin import make_key
from serving.accounts.caller import Role
from serving.store.engine import Store
from serving.store.key_rows import Change, KeyRow
from serving.store.keys import KeyTables


async def make_admin_key(store: Store, name: str) -> tuple[KeyRow, str]:
    """A new key with the role `admin`, and its text. Raises as `Store.writing`."""
    row, text = make_key(name=name, role=Role.ADMIN)
    await KeyTables(store).add_key(row, Change(local_actor()))
    return row, text


async def first_key(store: Store, name: str) -> str | None:
    """The text of a new admin key, if the store has no key that is good; None if it has one.
    Processes that ask at once may make one each. Raises as `Store.writing`."""
    if await KeyTables(store).has_key():
        return None
    _, text = await make_admin_key(store, name)
    return text


def local_actor() -> str:
    """Who works on the store without the API, for the audit."""
    try:
        return f"local:{getpass.getuser()}"
    except (OSError, KeyError):  # a user without a name
        return "local"
