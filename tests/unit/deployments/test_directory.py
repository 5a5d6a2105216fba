from __future__ import annotations

import asyncio
import json

import msgspec

from deployments.directory import EXPIRY_S, Table, decode
from serving.wire.entry import Entry
from tests.conftest import Eventually


def entry(name: str, port: int = 1) -> bytes:
    return msgspec.json.encode(Entry(name, "engine", "m", "127.0.0.1", port, "127.0.0.1:2"))


def test_an_announcement_is_a_change_only_once() -> None:
    table = Table()
    table.announce("a", entry("a"), 0)
    assert (table.version, table.entries()) == (1, (entry("a"),))
    table.announce("a", entry("a"), 1)
    assert table.version == 1
    table.announce("a", entry("a", port=2), 2)
    assert (table.version, table.entries()) == (2, (entry("a", port=2),))


def test_the_silent_are_forgotten() -> None:
    table = Table()
    table.announce("a", entry("a"), 0)
    table.announce("b", entry("b"), 1)
    table.expire(EXPIRY_S)
    assert len(table.entries()) == 2
    table.expire(EXPIRY_S + 0.5)
    assert table.entries() == (entry("b"),)
    assert table.version == 3


def test_withdrawing_twice_is_one_change() -> None:
    table = Table()
    table.announce("a", entry("a"), 0)
    table.withdraw("a")
    table.withdraw("a")
    assert (table.version, table.entries()) == (2, ())


async def test_whoever_is_behind_does_not_wait() -> None:
    table = Table()
    table.announce("a", entry("a"), 0)
    async with asyncio.timeout(1):
        await table.wait(table.epoch, 0, 60)
        await table.wait("another directory's epoch", table.version, 60)


async def test_every_waiter_hears_of_a_change(eventually: Eventually) -> None:
    table = Table()
    waits = [asyncio.create_task(table.wait(table.epoch, 0, 60)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(wait.done() for wait in waits)
    table.announce("a", entry("a"), 0)
    await eventually(lambda: all(wait.done() for wait in waits), 1)


async def test_a_wait_ends() -> None:
    table = Table()
    async with asyncio.timeout(1):
        await table.wait(table.epoch, 0, 0.01)


def test_a_restarted_directory_is_another() -> None:
    assert Table().epoch != Table().epoch


def test_entries_of_another_version_are_read() -> None:
    """A replica of a later version says more of itself, one of an earlier version less."""
    later = {"id": "a", "kind": "engine", "model": "m", "host": "h", "port": 1, "ops": "", "new": 5}
    earlier = {name: later[name] for name in ("id", "kind", "model", "host", "port", "ops")}
    table = Table()
    for number, fields in enumerate((later, earlier)):
        table.announce(str(number), json.dumps(fields).encode(), 0)
    assert decode(table.entries()) == (Entry("a", "engine", "m", "h", 1, ""),) * 2
