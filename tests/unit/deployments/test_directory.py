from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError

from deployments import directory
from deployments.code import directory_code
from deployments.directory import EXPIRY_S, Directory, Table, _decode
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
    assert _decode(table.entries()) == (Entry("a", "engine", "m", "h", 1, ""),) * 2


class Actor:
    """An actor of the directory: its answers, one after the other; an exception is raised."""

    def __init__(self, *answers: Any, says_code: bool = True) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[Any, ...]] = []
        for method in ("announce", "withdraw", "watch", *(["code"] if says_code else [])):
            setattr(self, method, SimpleNamespace(remote=self._asker(method)))

    def _asker(self, method: str) -> Any:
        def ask(*arguments: Any) -> Any:
            self.asked.append((method, *arguments))
            future: asyncio.Future[Any] = asyncio.Future()
            answer = self.answers.pop(0)
            if isinstance(answer, RayError):
                future.set_exception(answer)
            else:
                future.set_result(answer)
            return future

        return ask


async def test_replicas_look_for_a_directory_that_was_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that is away for a moment stays theirs; one that is not there yet is looked for again."""
    old = Actor(ActorUnavailableError("a moment", None), None, ActorDiedError(), ActorDiedError())
    new = Actor(("epoch", 1, (entry("a"),)))
    found: list[Any] = [ValueError("no such actor"), new]

    def get_actor(name: str, namespace: str) -> Any:
        if isinstance(answer := found.pop(0), ValueError):
            raise answer
        return answer

    monkeypatch.setattr(directory, "_open", lambda: old)
    monkeypatch.setattr(ray, "get_actor", get_actor)
    here = Directory()
    with pytest.raises(ActorUnavailableError):
        await here.withdraw("a")
    await here.withdraw("a")
    for _ in range(2):
        with pytest.raises(ActorDiedError):
            await here.withdraw("a")
    assert await here.watch("", -1, 0) == ("epoch", 1, _decode([entry("a")]))
    assert len(old.asked) == 4


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The directories that there are, one after the other; each is ended by a kill."""
    actors: list[Any] = []
    monkeypatch.setattr(directory, "_open", lambda: actors[0])
    monkeypatch.setattr(ray, "get", lambda future, timeout: future.result())
    monkeypatch.setattr(ray, "kill", lambda actor, no_restart: actors.remove(actor))
    monkeypatch.setattr(directory.time, "sleep", lambda _: None)
    return actors


async def test_one_of_other_code_is_replaced_and_no_other(actors: list[Any]) -> None:
    dying, new = Actor(ActorDiedError(), directory_code()), Actor(directory_code())
    actors[:] = [Actor(says_code=False), Actor("old"), dying, new]
    directory.renew()
    assert actors == [dying, new], "that its name was still taken for a moment is no harm"
    actors[:] = [new]
    directory.renew()
    assert actors == [new]
