from __future__ import annotations

from serving.accounts.bootstrap import first_key, make_admin_key
from serving.accounts.secret import digest_of, id_of
from serving.store.engine import Store
from serving.store.keys import KeyTables


async def test_one_key_is_made_where_there_is_none(store: Store) -> None:
    text = await first_key(store, "first")
    assert text is not None
    assert await first_key(store, "second") is None
    row = await KeyTables(store).key(id_of(text) or "")
    assert (row.name, row.role, row.account_id) == ("first", "admin", None)
    assert [secret.digest for secret in row.secrets] == [digest_of(text.encode())]
    (change,), _ = await KeyTables(store).audit(skip=0, limit=10)
    assert change.action == "key.create"
    assert change.actor.startswith("local")


async def test_more_may_be_made(store: Store) -> None:
    await first_key(store, "first")
    row, text = await make_admin_key(store, "second")
    assert id_of(text) == row.id
    assert (await KeyTables(store).keys(account_id=None, skip=0, limit=9))[1] == 2
