"""Whom a real vLLM engine accuses when it dies. No Ray: the engine server runs by itself."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from serving.catalogue.spec import EngineSpec
from serving.errors import EngineFailed, EngineKilled, ServingError
from serving.observability.logs import Log
from serving.router.answer import AttemptFailed
from serving.router.doubts import Doubts
from serving.wire.fingerprint import Fingerprint, fingerprint
from serving.wire.messages import AdapterRef, Call, CompletionCall, Sampling
from tests.cluster.conftest import local_model
from tests.cluster.engine_server import (
    EngineLink,
    EngineServer,
    engine_link,
    engine_server,
    http_call,
)
from tests.cluster.fault import MARK, install
from tests.conftest import Eventually
from tests.live import BASE, PIRATE, core_of


@dataclass(frozen=True)
class Mortal:
    """An engine server that may die, and a link to it."""

    server: EngineServer
    link: EngineLink


@contextlib.asynccontextmanager
async def mortal(
    folder: Path, log: Log, eventually: Eventually, fault: str = "", multiprocessing: str = "0"
) -> AsyncIterator[Mortal]:
    """An engine server that dies of marked requests at `fault`."""
    model = local_model(BASE)
    model["env"] |= {"VLLM_ENABLE_V1_MULTIPROCESSING": multiprocessing, **install(folder, fault)}
    with engine_server(EngineSpec.model_validate(model), folder) as server:
        async with engine_link(server, log) as link:
            await eventually(lambda: link.up)
            yield Mortal(server, link)


def completion(prompt: str, stop: tuple[str, ...] = ()) -> tuple[Call, bytes]:
    sampling = Sampling(temperature=0, stop=stop, frequency_penalty=-2.0)
    return CompletionCall("req-2", BASE, prompt, True, sampling, BASE), b""


async def failure(link: EngineLink, call: Call, body: bytes) -> tuple[ServingError, bool]:
    """What a call fails with, and whether another replica may run it."""
    with pytest.raises(AttemptFailed) as caught:
        await link.call(call, body)
    return caught.value.error, caught.value.retryable


async def running(
    link: EngineLink, eventually: Eventually, call: Call, body: bytes
) -> asyncio.Task:
    """A call that fails later, once it has its first bytes."""
    answer = link.open(call, body)
    await eventually(lambda: answer.ready, 30)

    async def end() -> tuple[ServingError, bool]:
        while answer.failed is None:
            answer.take()
            assert answer.end is None, "it ended well"
            await answer.wait()
        return answer.failed.error, answer.failed.retryable

    return asyncio.create_task(end())


ENDLESS = {"max_tokens": 1000, "ignore_eos": True, "stream": True, "temperature": 0}


@pytest.mark.parametrize(
    ("fault", "multiprocessing"),
    [("execute_model", "0"), ("sample_tokens", "0"), ("execute_model", "1")],
)
async def test_the_marked_request_is_accused_and_no_other(
    tmp_path: Path, log: Log, eventually: Eventually, fault: str, multiprocessing: str
) -> None:
    async with mortal(tmp_path, log, eventually, fault, multiprocessing) as dying:
        link = dying.link
        pirate = AdapterRef(PIRATE, local_model(PIRATE)["weights"])
        old = [
            await running(link, eventually, *call)
            for call in (
                http_call("/v1/completions", BASE, prompt="Once", **ENDLESS),
                http_call("/v1/completions", PIRATE, pirate, prompt="Twice", **ENDLESS),
                completion("Once upon a time"),
            )
        ]
        if fault == "sample_tokens":
            marked = completion("My name is", (MARK,))
        else:
            body = {"prompt": ["My name", "is"], "stop": [MARK], "n": 2, "stream": True}
            marked = http_call("/v1/completions", BASE, **body)
        error, retryable = await failure(link, *marked)
        assert isinstance(error, EngineKilled), error
        assert not retryable
        for error, retryable in await asyncio.gather(*old):
            assert isinstance(error, EngineFailed), error
            assert retryable
        assert link.told == [fingerprint(*marked)]


@pytest.mark.long
async def test_who_is_new_beside_an_older_killer_is_no_suspect(
    tmp_path: Path, log: Log, eventually: Eventually
) -> None:
    """The engine dies in a step in which it runs an innocent request for the first time."""
    async with mortal(tmp_path, log, eventually, "beside_new") as dying:
        link = dying.link
        marked = http_call("/v1/completions", BASE, prompt="My name", **ENDLESS, stop=[MARK])
        old = await running(link, eventually, *marked)
        innocent = completion("Once upon a time")
        for error, retryable in (await failure(link, *innocent), await old):
            assert isinstance(error, EngineFailed), error
            assert retryable
        assert link.told == []
        assert {(doubt.request, doubt.place > 0) for doubt in link.doubts} == {
            (fingerprint(*marked), True),
            (fingerprint(*innocent), False),
        }


@pytest.mark.long
async def test_two_deaths_tell_who_kills_at_a_later_step(
    tmp_path: Path, log: Log, eventually: Eventually
) -> None:
    """Two engines die of it at the same token, with the same request beside it both times."""
    convicts: list[Fingerprint] = []
    doubts = Doubts(
        lambda _, died, guilty: convicts.extend(guilty), log, keep_s=60, rng=random.Random(1)
    )
    marked = completion("My name is", (MARK,))
    beside = completion("Once upon a time")
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with mortal(folder, log, eventually, "sixth_token") as dying:
            link = dying.link
            old = await running(link, eventually, *beside)
            for error, retryable in (await failure(link, *marked), await old):
                assert isinstance(error, EngineFailed), error
                assert retryable
            assert link.told == []
            places = {doubt.request: doubt.place for doubt in link.doubts}
            assert places.keys() == {fingerprint(*marked), fingerprint(*beside)}
            assert places[fingerprint(*marked)] == 5
        assert convicts == []
        doubts.hear(BASE, f"replica {number}", link.doubts)
    assert convicts == [fingerprint(*marked)]


async def test_whoever_sends_it_and_leaves_is_accused(
    tmp_path: Path, log: Log, eventually: Eventually
) -> None:
    async with mortal(tmp_path, log, eventually, "execute_model") as dying:
        link = dying.link
        innocent = await running(link, eventually, *completion("Once upon a time"))
        marked = http_call("/v1/completions", BASE, prompt="My name is", stop=[MARK])
        # A busy engine sees a request late; one that has left before that kills nobody.
        for seconds in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0):
            answer = link.open(*marked)
            await asyncio.sleep(seconds)
            answer.abandon()
            if (await asyncio.wait([innocent], timeout=1.0))[0]:
                break
            innocent.cancel()
            innocent = await running(link, eventually, *completion("Once upon a time"))
        innocent.cancel()
        await eventually(lambda: link.told, 10)
        assert link.told == [fingerprint(*marked)]


async def test_a_killed_core_accuses_nobody(
    tmp_path: Path, log: Log, eventually: Eventually
) -> None:
    async with mortal(tmp_path, log, eventually) as dying:
        link = dying.link
        old = await running(link, eventually, *completion("Once upon a time"))
        long = http_call("/v1/completions", BASE, prompt="My name is " * 100, **ENDLESS)
        new = asyncio.create_task(failure(link, *long))
        await asyncio.sleep(0.01)
        core_of(dying.server.process).send_signal(signal.SIGKILL)
        for error, retryable in await asyncio.gather(old, new):
            assert isinstance(error, EngineFailed), error
            assert retryable
        await eventually(lambda: not link.connected, 10)
        assert link.told == []
