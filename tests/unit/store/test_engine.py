"""The store: transactions, its schema's version, and what it says while it is away."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from msgspec import structs
from sqlalchemy import Connection, Row, insert, inspect, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from serving.store import migrate
from serving.store.engine import Store, StoreAway
from serving.store.ledger import StoredLedger
from serving.store.migrate import SchemaError
from serving.store.schema import METADATA, usage_totals, versions
from tests.stores import PostgreSQL
from tests.unit.accounts.ledger.conftest import ENTRY


@asynccontextmanager
async def opened(url: str, **options: bool) -> AsyncIterator[Store]:
    store = Store(url, **options)
    try:
        yield store
    finally:
        await store.close()


async def number(store: Store, name: str = "keys") -> int | None:
    async with store.reading() as connection:
        query = select(versions.c.number).where(versions.c.name == name)
        return (await connection.execute(query)).scalar()


async def count_up(store: Store) -> int:
    async with store.writing() as connection:
        await connection.execute(update(versions).values(number=versions.c.number + 1))
        found = await connection.execute(select(versions.c.number))
        await asyncio.sleep(0.01)
        return int(found.scalar_one())


async def test_it_brings_its_schema_up_to_date_when_it_is_first_used(store: Store) -> None:
    before = await store.status()
    assert before.current == ""
    assert before.missing
    assert before.missing[-1] == before.head
    assert await number(store) == 0
    after = await store.status()
    assert (after.current, after.missing, after.newer) == (after.head, (), False)


async def test_the_migrations_make_the_schema(store: Store) -> None:
    def differences(connection: Connection) -> list[object]:
        opts = {"compare_type": True, "include_object": is_ours}
        context = MigrationContext.configure(connection, opts=opts)
        return list(compare_metadata(context, METADATA))

    def is_ours(each: object, name: str | None, *others: object) -> bool:
        # PostgreSQL keeps the ledger in a table for each month.
        return not str(name).startswith("usage_entries_")

    async with store.reading() as connection:
        assert await connection.run_sync(differences) == []


async def test_what_a_migration_makes_it_takes_away(store: Store) -> None:

    def down(connection: Connection) -> list[str]:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        return inspect(connection).get_table_names()

    async with store.writing() as connection:
        assert await connection.run_sync(down) == ["alembic_version"]


async def test_the_sums_of_all_keys_begin_with_what_there_is(store: Store) -> None:
    await StoredLedger(store).ship("j", 0, [(1, ENTRY), (2, structs.replace(ENTRY, key_id="k"))])

    def again(connection: Connection) -> None:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0004_weights")
        command.upgrade(config, "head")

    async with store.reading() as connection:
        before = (await connection.execute(select(usage_totals))).all()
    async with store.writing() as connection:
        await connection.run_sync(again)
    async with store.reading() as connection:
        assert (await connection.execute(select(usage_totals))).all() == before
    assert [row.requests for row in before] == [2]


async def test_many_may_bring_it_up_to_date_at_once(store_url: str) -> None:
    stores = [Store(store_url) for _ in range(6)]
    try:
        before = await asyncio.gather(*(each.upgrade() for each in stores))
        assert sorted(bool(found.missing) for found in before) == [False] * 5 + [True]
        assert await asyncio.gather(*map(number, stores)) == [0] * 6
    finally:
        for each in stores:
            await each.close()


async def test_processes_may_bring_it_up_to_date_at_once(store_url: str) -> None:
    program = (
        "import asyncio, sys\nfrom serving.store.engine import Store\n"
        "async def main():\n store = Store(sys.argv[1])\n"
        " print(bool((await store.upgrade()).missing))\n await store.close()\n"
        "asyncio.run(main())"
    )

    run = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, store_url), stdout=asyncio.subprocess.PIPE
        )
        for _ in range(3)
    ]
    said = [(await process.communicate())[0].decode().strip() for process in run]
    assert sorted(said) == ["False", "False", "True"]


async def test_it_may_be_told_not_to_migrate(store_url: str) -> None:
    async with opened(store_url, migrates=False) as store:
        with pytest.raises(SchemaError, match=r"lacks 0001_accounts.*serving store upgrade"):
            await number(store)
        await store.upgrade()
        assert await number(store) == 0


async def test_a_newer_schema_is_taken_as_it_is(store: Store, store_url: str) -> None:
    async with store.writing() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999_later'"))
    for migrates in (True, False):
        async with opened(store_url, migrates=migrates) as older:
            assert await number(older) == 0
            assert (await older.status()).newer
            assert (await older.upgrade()).current == "9999_later"


async def test_a_block_that_fails_writes_nothing(store: Store) -> None:
    async def fail() -> None:
        async with store.writing() as connection:
            await connection.execute(insert(versions).values(name="x", number=1))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await number(store, "x") is None


async def test_a_block_that_is_cancelled_writes_nothing(store: Store) -> None:
    begun = asyncio.Event()

    async def write() -> None:
        async with store.writing() as connection:
            await connection.execute(insert(versions).values(name="x", number=1))
            begun.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(write())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await number(store, "x") is None
    assert await count_up(store) == 1


async def test_writers_that_count_up_never_see_the_same_number(store_url: str) -> None:
    async with opened(store_url) as one, opened(store_url) as other:
        await one.prepare()
        found = await asyncio.gather(*(count_up(each) for _ in range(10) for each in (one, other)))
        assert sorted(found) == list(range(1, 21))


async def test_who_reads_first_and_writes_then_waits_for_its_turn(store: Store) -> None:
    """Python's own transactions would fail with "database is locked" here."""

    async def read_and_write() -> None:
        async with store.writing() as connection:
            before = (await connection.execute(select(versions.c.number))).scalar_one()
            await asyncio.sleep(0.01)
            await connection.execute(update(versions).values(number=before + 1))

    await store.prepare()
    await asyncio.gather(*(read_and_write() for _ in range(5)))
    if store.kind == "sqlite":
        assert await number(store) == 5


async def test_readers_do_not_wait_for_a_writer(store: Store) -> None:
    await store.prepare()
    async with store.writing() as connection:
        await connection.execute(update(versions).values(number=7))
        assert await asyncio.wait_for(number(store), 5) == 0
    assert await number(store) == 7


async def test_references_are_checked(store: Store) -> None:
    statement = (
        "INSERT INTO api_key_secrets (digest, key_id, created_at) "
        "VALUES (:digest, 'nobody', CURRENT_TIMESTAMP)"
    )
    with pytest.raises(IntegrityError):
        async with store.writing() as connection:
            await connection.execute(text(statement), {"digest": b"x"})


async def test_a_wrong_statement_is_not_taken_for_a_store_that_is_away(store: Store) -> None:
    with pytest.raises((OperationalError, ProgrammingError)):
        async with store.reading() as connection:
            await connection.execute(text("SELECT nothing FROM nowhere"))


async def test_errors_have_no_parameters(store: Store) -> None:
    with pytest.raises((OperationalError, ProgrammingError)) as caught:
        async with store.reading() as connection:
            await connection.execute(text("SELECT :secret FROM nowhere"), {"secret": "sk-secret"})
    assert "sk-secret" not in str(caught.value)


async def test_sqlite_survives_a_power_cut_and_is_its_owners_alone(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path}/state/store.sqlite3") as store:
        async with store.reading() as connection:
            pragmas: dict[str, Row[tuple[object]] | None] = {}
            for name in ("journal_mode", "synchronous", "foreign_keys"):
                found = await connection.execute(text(f"PRAGMA {name}"))
                pragmas[name] = found.first()
        assert pragmas == {"journal_mode": ("wal",), "synchronous": (2,), "foreign_keys": (1,)}
        await count_up(store)
        modes = {
            name: stat.S_IMODE((tmp_path / "state" / name).stat().st_mode)
            for name in os.listdir(tmp_path / "state")
        }
        assert "store.sqlite3" in modes
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


async def test_a_file_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with opened(f"sqlite:///{tmp_path}/file/store.sqlite3") as store:
        with pytest.raises(StoreAway, match="file"):
            await number(store)


async def test_nobody_at_the_address() -> None:
    async with opened("postgresql://user:hidden@127.0.0.1:1/db") as store:
        for _ in range(2):
            with pytest.raises(StoreAway) as caught:
                await number(store)
            assert "hidden" not in str(caught.value)
        assert store.shown == "postgresql://user:***@127.0.0.1:1/db"


async def test_a_database_that_goes_away_and_comes_back() -> None:
    server = PostgreSQL()
    try:
        async with opened(server.database()) as store:
            assert await number(store) == 0
            server.stop()
            for _ in range(2):
                with pytest.raises(StoreAway):
                    await number(store)
            server.start()
            assert await number(store) == 0
            assert await count_up(store) == 1
    finally:
        server.close()


async def test_a_database_that_goes_away_within_a_transaction() -> None:
    server = PostgreSQL()
    try:
        async with opened(server.database()) as store:
            await store.prepare()

            async def write() -> None:
                async with store.writing() as connection:
                    await connection.execute(update(versions).values(number=5))
                    server.server.psql(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE application_name = 'serving';"
                    )
                    await connection.execute(select(versions.c.number))

            with pytest.raises(StoreAway):
                await write()
            assert await number(store) == 0
    finally:
        server.close()


async def test_a_full_disk_is_a_store_that_is_away(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path}/store.sqlite3") as store:
        await store.prepare()

        async def fill() -> None:
            async with store.writing() as connection:
                found = await connection.execute(text("PRAGMA page_count"))
                await connection.execute(text(f"PRAGMA max_page_count = {found.scalar_one()}"))
                for each in range(10):
                    row = {"name": f"n{each}", "number": 1, "filler": "x" * 4000}
                    statement = "INSERT INTO versions VALUES (:name || :filler, :number)"
                    await connection.execute(text(statement), row)

        with pytest.raises(StoreAway, match="full"):
            await fill()
