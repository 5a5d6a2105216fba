"""Random bytes on real sockets, through the whole gateway: each connection hears well-formed
responses only, nothing is left of it afterwards, and the next client is served."""

from __future__ import annotations

import asyncio
import os
import socket
import struct

from tests.conftest import Eventually
from tests.gateway.conftest import Open, Site
from tests.gateway.responses import REFUSALS, responses
from tests.http_mutations import Conversation, conversation

CASES = int(os.environ.get("SERVING_FUZZ_CASES", "3000"))
AT_ONCE = 16
# After so long without a word the client, which waits, closes its sending side, in seconds.
QUIET_S = 0.1
# What a client did wrong, and what it did right; no 5xx but HTTP's own two.
ALLOWED = REFUSALS | {200, 401, 404, 422}


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


async def test_random_bytes_harm_nobody(open_site: Open, eventually: Eventually) -> None:
    site = await open_site(body_timeout_s=5.0)
    port = await site.listen()
    for first in range(0, CASES, AT_ONCE):
        seeds = range(first, min(first + AT_ONCE, CASES))
        async with asyncio.TaskGroup() as group:
            talks = [group.create_task(talk(site, conversation(seed))) for seed in seeds]
        for seed, talked in zip(seeds, talks, strict=True):
            try:
                check(talked.result())
            except (AssertionError, ValueError, KeyError) as error:
                raise AssertionError(f"seed {seed}: {error}") from error
    assert site.counted(outcome="ok") > CASES / 6, "a server that refuses everything"
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


def connections(port: int) -> int:
    """Sockets of this process that are connected from `port`: the server's side of each."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as sock:
                found += sock.getsockname()[1] == port and bool(sock.getpeername())
        except (OSError, IndexError, TypeError):
            continue
    return found


def request_tasks() -> list[asyncio.Task[object]]:
    return [task for task in asyncio.all_tasks() if "Exchange" in repr(task.get_coro())]
