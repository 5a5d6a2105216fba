from __future__ import annotations

import asyncio

from deployments.directory import EXPIRY_S, Table
from serving.wire.entry import Entry
from tests.conftest import Eventually


def entry(name: str, port: int = 1) -> Entry:
    return Entry(name, "engine", "m", "127.0.0.1", port, "127.0.0.1:2")


def test_an_announcement_is_a_change_only_once() -> None:
    table = Table()
    table.announce(entry("a"), 0)
    assert (table.version, table.entries()) == (1, (entry("a"),))
    table.announce(entry("a"), 1)
    assert table.version == 1
    table.announce(entry("a", port=2), 2)
    assert (table.version, table.entries()) == (2, (entry("a", port=2),))


def test_the_silent_are_forgotten() -> None:
    table = Table()
    table.announce(entry("a"), 0)
    table.announce(entry("b"), 1)
    table.expire(EXPIRY_S)
    assert len(table.entries()) == 2
    table.expire(EXPIRY_S + 0.5)
    assert table.entries() == (entry("b"),)
    assert table.version == 3


def test_withdrawing_twice_is_one_change() -> None:
    table = Table()
    table.announce(entry("a"), 0)
    table.withdraw("a")
    table.withdraw("a")
    assert (table.version, table.entries()) == (2, ())


async def test_whoever_is_behind_does_not_wait() -> None:
    table = Table()
    table.announce(entry("a"), 0)
    async with asyncio.timeout(1):
        await table.wait(table.epoch, 0, 60)
        await table.wait("another directory's epoch", table.version, 60)


async def test_every_waiter_hears_of_a_change(eventually: Eventually) -> None:
    table = Table()
    waits = [asyncio.create_task(table.wait(table.epoch, 0, 60)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(wait.done() for wait in waits)
    table.announce(entry("a"), 0)
    await eventually(lambda: all(wait.done() for wait in waits), 1)


async def test_a_wait_ends() -> None:
    table = Table()
    async with asyncio.timeout(1):
        await table.wait(table.epoch, 0, 0.01)


def test_a_restarted_directory_is_another() -> None:
    assert Table().epoch != Table().epoch
