from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from loadtests.load.planned import Planned, Turns
from loadtests.run.feed import Feed
from tests.unit.loadtests.planned import planned


def prepare(of: Planned) -> bytes:
    return of.prompt.encode()


async def test_sessions_are_made_ahead_and_come_in_their_order() -> None:
    made: list[int] = []

    def sessions() -> Iterator[Turns]:
        for number in range(10):
            made.append(number)
            yield (planned(index=number, prompt=str(number)),)

    feed = Feed(sessions(), prepare, depth=3)
    assert made == [0, 1, 2]
    found = []
    while (each := feed.pop()) is not None:
        found.append((each[0][0].index, each[1]))
    assert found == [(number, str(number).encode()) for number in range(10)]


async def test_it_fills_itself_while_nothing_else_is_to_be_done() -> None:
    made: list[int] = []

    def sessions() -> Iterator[Turns]:
        for number in range(10):
            made.append(number)
            yield (planned(index=number),)

    feed = Feed(sessions(), prepare, depth=3)
    feed.pop()
    assert made == [0, 1, 2]
    await asyncio.sleep(0.01)
    assert made == [0, 1, 2, 3]


async def test_large_requests_are_not_hoarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtests.run.feed.BYTES", 100)
    made: list[int] = []

    def sessions() -> Iterator[Turns]:
        for number in range(10):
            made.append(number)
            yield (planned(prompt="x" * 60),)

    feed = Feed(sessions(), prepare)
    assert len(made) == 2
    while feed.pop() is not None:
        pass
    assert len(made) == 10
