"""Random bytes on real sockets, through the whole gateway: each connection hears well-formed
responses only, nothing is left of it afterwards, and others who stream meanwhile are served in
time."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import statistics
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import psutil
import pytest

from tests.conftest import Eventually
from tests.gateway.conftest import Open, Site, events
from tests.gateway.responses import REFUSALS, responses
from tests.http_mutations import Conversation, conversation

CASES = int(os.environ.get("SERVING_FUZZ_CASES", "3000"))
AT_ONCE = 16
# After so long without a word the client, which waits, closes its sending side, in seconds.
QUIET_S = 0.1
# What a client did wrong, and what it did right; no 5xx but HTTP's own two.
ALLOWED = REFUSALS | {200, 401, 404, 422}

BYSTANDERS = 3
# What the fuzzer may add to a bystander's stream, in seconds of this thread's work: to 99 of 100,
# and to the worst. All run on one event loop, so that whatever holds a bystander up is work of the
# thread, whereas the clock on the wall also counts what a busy machine did meanwhile. The fuzzer's
# own work is in it.
MOST_S = 0.1
WORST_S = 0.5
# A stream that waits for something other than work ends too, in seconds on the wall.
STREAM_S = 20.0

# What this process may grow by once a quarter of the conversations has been held: in any case, and
# for each conversation, of which the log of the tests and the times of the bystanders are a part.
MOST_GROWN_MIB = 4.0
MOST_LEFT_KIB = 1.0


class Bystander:
    """A client who streams one completion after the other on one connection. `took` is what
    this thread worked while each lasted, in seconds."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.took: list[float] = []

    async def ask(self) -> None:
        body = {"model": "echo", "prompt": "one two three", "stream": True}
        began = time.thread_time()
        async with (
            asyncio.timeout(STREAM_S),
            self._client.stream("POST", "/v4/completions", json=body) as answer,
        ):
            assert answer.status_code == 200, await answer.aread()
            said = "".join([text async for text in answer.aiter_text()])
        self.took.append(time.thread_time() - began)
        *_, last = events(said)
        assert last[1]["completion"]["finish_reason"] is not None, said

    async def ask_on(self) -> None:
        while True:
            await self.ask()
            await asyncio.sleep(0.01)


@asynccontextmanager
async def bystanders(site: Site) -> AsyncIterator[list[Bystander]]:
    """While the block runs, some stream; none of them may fail or be made to wait. What each took
    before the block is the measure."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(site.wire()) for _ in range(BYSTANDERS)]
        all_of_them = [Bystander(client) for client in clients]
        for each in all_of_them * 20:
            await each.ask()
        alone_s = statistics.median(seconds for each in all_of_them for seconds in each.took)
        for each in all_of_them:
            each.took.clear()
        tasks = [asyncio.create_task(each.ask_on()) for each in all_of_them]
        try:
            yield all_of_them
        finally:
            ended = [task for task in tasks if task.done()]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in ended:
            task.result()  # raises what it failed of
    took = sorted(seconds for each in all_of_them for seconds in each.took)
    most_s, worst_s = took[len(took) * 99 // 100] - alone_s, took[-1] - alone_s
    print(
        f"{len(took)} streams of bystanders: alone {alone_s * 1000:.1f} ms; the fuzzer added "
        f"{most_s * 1000:.1f} ms to 99 of 100, {worst_s * 1000:.1f} ms to the worst"
    )
    assert most_s < MOST_S
    assert worst_s < WORST_S


async def talk(site: Site, talked: Conversation) -> bytes:
    """What the server says, up to where one of the two ends it."""
    reader, writer = await site.connect()
    said = b""
    try:
        for part in talked.parts:
            if writer.is_closing():  # refused, and reset
                break
            writer.write(part)
            await asyncio.sleep(0)
        if talked.leaves != "waits":
            await asyncio.sleep(0.01)
            if talked.leaves == "resets" and not writer.is_closing():
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            return b""
        while True:
            try:
                async with asyncio.timeout(QUIET_S):
                    more = await reader.read(65536)
            except TimeoutError:
                break
            said += more
            if not more:
                return said
        if not writer.is_closing():
            writer.write_eof()
        async with asyncio.timeout(10):
            return said + await reader.read()
    except ConnectionError:
        return said
    finally:
        writer.close()


def check(said: bytes) -> None:
    for response in responses(said):
        assert response.status in ALLOWED, response
        if response.status >= 400:
            error = response.json["error"]
            assert error["message"].isprintable()
            assert error["request_id"] == response.headers["x-request-id"]
            assert len(response.body) < 1000, "an echo"
        if response.status in REFUSALS - {400, 405}:
            response.check_refusal()


@pytest.fixture
def _own_garbage() -> Iterator[None]:
    """What the tests before have left in this process is not looked through again: a collection of
    all of it would hold up the bystanders for a second."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("_own_garbage")
async def test_random_bytes_harm_nobody(open_site: Open, eventually: Eventually) -> None:
    site = await open_site(body_timeout_s=5.0)
    port = await site.listen()
    async with bystanders(site) as others:
        before = site.counted(outcome="ok")
        had_mib: float | None = None
        for first in range(0, CASES, AT_ONCE):
            if had_mib is None and first >= CASES // 4:
                had_mib = memory_mib(site)
            seeds = range(first, min(first + AT_ONCE, CASES))
            async with asyncio.TaskGroup() as group:
                talks = [group.create_task(talk(site, conversation(seed))) for seed in seeds]
            for seed, talked in zip(seeds, talks, strict=True):
                try:
                    check(talked.result())
                except (AssertionError, ValueError, KeyError) as error:
                    raise AssertionError(f"seed {seed}: {error}") from error
        assert had_mib is not None
        grown_mib = memory_mib(site) - had_mib
        print(f"grown by {grown_mib:.1f} MiB since the first quarter")
        streams = sum(len(each.took) for each in others)
        assert streams > BYSTANDERS, "nobody stood by"
        answered = site.counted(outcome="ok") - before - streams
    assert grown_mib < MOST_GROWN_MIB + CASES * MOST_LEFT_KIB / 1024
    assert answered > CASES / 6, "a server that refuses everything"
    assert site.counted(outcome="error") == 0
    async with site.wire() as wire:
        body = {"model": "echo", "prompt": "still there"}
        answer = await wire.post("/v4/completions", json=body)
        assert connections(port) == 1
    assert answer.json()["completion"]["text"].split() == ["still", "there"]
    await eventually(lambda: site.idle)
    await eventually(lambda: connections(port) == 0)
    await eventually(lambda: not request_tasks())
    assert '"level": "ERROR"' not in site.log_text()


def memory_mib(site: Site) -> float:
    """What this process has, in which the server and its clients are, but for the calls that the
    engine's double keeps."""
    for engine in site.engines:
        engine.calls.clear()
    gc.collect()
    return psutil.Process().memory_info().rss / 2**20


def connections(port: int) -> int:
    """Sockets of this process that are connected from `port`: the server's side of each."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            copy = os.dup(int(name))
            try:
                sock = socket.socket(fileno=copy)
            except OSError:  # a file or a pipe, which would be open for ever
                os.close(copy)
                continue
            with sock:
                found += sock.getsockname()[1] == port and bool(sock.getpeername())
        except (OSError, IndexError, TypeError):
            continue
    return found


def request_tasks() -> list[asyncio.Task[object]]:
    return [task for task in asyncio.all_tasks() if "Exchange" in repr(task.get_coro())]
