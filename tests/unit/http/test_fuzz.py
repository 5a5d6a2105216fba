"""Our reading of random bytes, held against that of h11, which shares no code with it.

Whatever we hand to the app as a request, h11 must have read in the same bytes, as the same request
at the same place. The reverse is not asked: we may refuse more.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import h11

from serving.errors import ServingError
from serving.http.listener import HttpServer, listen
from tests.http_mutations import conversation

CASES = int(os.environ.get("SERVING_FUZZ_CASES", "4000"))
AT_ONCE = 16

Read = tuple[bytes, bytes, bytes, str]


class App:
    """Keeps the requests of each client, and answers."""

    def __init__(self) -> None:
        self.read: dict[int, list[Read]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            try:
                message = await receive()
            except ServingError:
                await send({"type": "http.response.start", "status": 400})
                await send({"type": "http.response.body"})
                return
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        query = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        read = (scope["method"].encode(), target, body, scope["http_version"])
        self.read.setdefault(scope["client"][1], []).append(read)
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})


def by_h11(data: bytes) -> list[Read]:
    """The requests that h11 reads, up to where it refuses or would close. Unlike us, it does not
    skip empty lines before a request, which RFC 9112, section 2.2, asks for."""
    found: list[Read] = []
    while data := data.lstrip(b"\r\n"):
        server = h11.Connection(h11.SERVER, max_incomplete_event_size=200_000)
        server.receive_data(data)
        request, body = None, b""
        try:
            while not isinstance(event := server.next_event(), h11.EndOfMessage):
                if isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                else:
                    return found
        except h11.RemoteProtocolError:
            return found
        assert request is not None
        found.append((request.method, request.target, body, request.http_version.decode()))
        server.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
        server.send(h11.EndOfMessage())
        if server.our_state is not h11.DONE or server.their_state is not h11.DONE:
            return found
        data, _ = server.trailing_data
    return found


async def test_we_read_what_h11_reads() -> None:
    app = App()
    server = HttpServer(app, listen("127.0.0.1"))
    await server.start()
    accepted = 0

    async def talk(seed: int) -> None:
        nonlocal accepted
        talked = conversation(seed, leaving=False)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            for part in talked.parts:
                if writer.is_closing():  # refused, and reset
                    break
                writer.write(part)
                await asyncio.sleep(0)
            answers = b""
            while True:
                try:
                    async with asyncio.timeout(0.05):
                        said = await reader.read(65536)
                except TimeoutError:
                    if writer.is_closing():
                        break
                    writer.write_eof()
                    async with asyncio.timeout(10):
                        await reader.read()
                    break
                answers += said
                if not said:
                    break
        except ConnectionError:
            pass  # reset after a refusal
        ours = app.read.pop(writer.get_extra_info("sockname")[1], [])
        writer.close()
        theirs = by_h11(talked.data)
        # h11 reads one request of HTTP/1.0; whole URLs as targets are cut to their paths by us.
        if any(version == "1.0" for *_, version in theirs[: len(ours)]):
            ours = ours[: len(theirs)]
        for mine, other in zip(ours, theirs, strict=False):
            assert mine[0] == other[0], (seed, mine, other)
            assert other[1].endswith(mine[1]) or mine[1] == b"/", (seed, mine, other)
            assert mine[2:] == other[2:], (seed, mine, other)
        assert len(ours) <= len(theirs), (seed, ours, theirs)
        accepted += len(ours)

    try:
        for first in range(0, CASES, AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for seed in range(first, min(first + AT_ONCE, CASES)):
                    group.create_task(talk(seed))
    finally:
        await server.close()
    # Else the test would hold for a server that refuses everything.
    assert accepted > CASES / 2
