"""The listener on real sockets: limits, refusals, how responses are framed, drains."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from serving.http.head import MAX_HEADER_BYTES
from serving.http.listener import HttpServer, listen
from serving.http.patience import Patience
from serving.http.request import WRITE

REQUEST = b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n"
Start = Callable[..., Awaitable[HttpServer]]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the length of the body; /slow takes a moment, /write goes to `write`."""
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if scope["path"] == "/write":
        await write(scope["extensions"][WRITE], send)
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(0.3)
    if scope["path"] in MISTAKES:
        await MISTAKES[scope["path"]](send)
        return
    text = str(len(body)).encode()
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


START = {"type": "http.response.start", "status": 200}


async def raises(send: Any) -> None:
    raise ValueError("a bug")


async def says_nothing(send: Any) -> None:
    pass


async def stops_halfway(send: Any) -> None:
    await send({**START, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})


async def says_too_much(send: Any) -> None:
    await send({**START, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"too much"})


async def says_too_little(send: Any) -> None:
    await send({**START, "headers": [(b"content-length", b"19")]})
    await send({"type": "http.response.body", "body": b"too little"})


async def splits(send: Any) -> None:
    await send({**START, "headers": [(b"x", b"a\r\nset-cookie: b")]})


async def empty(send: Any) -> None:
    await send({**START, "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def large(send: Any) -> None:
    await send({**START, "headers": [(b"content-length", b"20000000")]})
    await send({"type": "http.response.body", "body": b"x" * 20_000_000})


async def twice(send: Any) -> None:
    await send({**START, "headers": []})
    await send({"type": "http.response.body", "body": b"one", "more_body": True})
    await asyncio.sleep(0.2)
    await send({"type": "http.response.body", "body": b"two"})


MISTAKES: dict[str, Callable[[Any], Awaitable[None]]] = {
    "/twice": twice,
    "/raises": raises,
    "/says_nothing": says_nothing,
    "/stops_halfway": stops_halfway,
    "/says_too_much": says_too_much,
    "/says_too_little": says_too_little,
    "/splits": splits,
    "/empty": empty,
    "/large": large,
}


async def write(write: Callable[[bytes], bool], send: Any) -> None:
    """Answer with chunks that are written without `send`, as many as go; the last says how many."""
    assert not write(b"before the response has begun")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    written = 0
    while written < 1000 and write(b"a" * 10_000):
        written += 1
    text = b"<%d>" % written
    await send({"type": "http.response.body", "body": text})
    assert not write(b"after its end")


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    servers: list[HttpServer] = []

    async def start(**options: Any) -> HttpServer:
        listener = options.pop("listener", None) or listen("127.0.0.1")
        servers.append(HttpServer(app, listener, **options))
        await servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        await server.close()


async def ask(port: int, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """Send `parts`; returns what the server says until it hangs up, or the headers of a response
    after which it stays connected with what came with them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(pause_s)
        said = b""
        while data := await asyncio.wait_for(reader.read(65536), 2):
            said += data
            if b"\r\n\r\n" in said and b"connection: close" not in said:
                break
        return said
    except ConnectionError:
        return b"reset"
    finally:
        writer.close()


def envelope(said: bytes, status: int) -> dict[str, Any]:
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), said
    parsed: dict[str, Any] = json.loads(body)
    assert f"x-request-id: {parsed['error']['request_id']}".encode() in head
    assert parsed["detail"] == parsed["error"]["message"]
    return parsed


@pytest.mark.parametrize("parts", [(), (b"GET / HT",), (b"GET / HTTP/1.1\r\nhost: x\r\n",)])
async def test_headers_that_do_not_come_are_not_waited_for(
    start: Start, parts: tuple[bytes, ...]
) -> None:
    server = await start(patience=Patience(headers_s=0.2))
    said = await ask(server.port, *parts)
    assert envelope(said, 408)["error"]["code"] == "request_timeout"


async def test_headers_may_not_trickle_either(start: Start) -> None:
    server = await start(patience=Patience(headers_s=0.2))
    said = await ask(server.port, b"GET / HTTP/1.1\r\n", *[b"x: y\r\n"] * 10, pause_s=0.05)
    assert said == b"reset" or envelope(said, 408)


async def test_a_later_request_has_its_own_time(start: Start) -> None:
    server = await start(patience=Patience(headers_s=0.3))
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for _ in range(3):
        writer.write(REQUEST.replace(b"/slow", b"/"))
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(1)
        await asyncio.sleep(0.2)
    writer.write(b"GET /")
    assert envelope(await reader.read(), 408)
    writer.close()


async def test_a_slow_answer_is_not_a_slow_request(start: Start) -> None:
    server = await start(patience=Patience(headers_s=0.1))
    assert b" 200 " in await ask(server.port, REQUEST)


async def test_endless_headers_are_refused(start: Start) -> None:
    server = await start()
    flood = [b"GET / HTTP/1.1\r\n", b"x: " + b"a" * MAX_HEADER_BYTES]
    said = await ask(server.port, *flood)
    assert said == b"reset" or envelope(said, 431)["error"]["code"] == "headers_too_large"


async def test_a_body_may_be_larger_than_headers(start: Start) -> None:
    server = await start()
    size = 4 * MAX_HEADER_BYTES
    head = f"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n".encode()
    assert (await ask(server.port, head + b"b" * size)).endswith(str(size).encode())


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00", b"nonsense\r\n\r\n", b"\0" * 100])
async def test_what_is_no_http_gets_an_envelope(start: Start, data: bytes) -> None:
    server = await start()
    assert envelope(await ask(server.port, data), 400)["error"]["code"] == "invalid_request"


async def test_two_servers_share_a_port_and_one_takes_over(start: Start) -> None:
    first = await start(listener=listen("127.0.0.1", shared=True))
    port = first.port
    second = await start(listener=listen("127.0.0.1", port, shared=True))
    assert second.port == port
    await first.close()
    assert not first.serving
    for _ in range(20):
        assert b" 200 " in await ask(port, REQUEST.replace(b"/slow", b"/"))


async def test_a_port_that_is_taken_is_an_error(start: Start) -> None:
    server = await start()
    with pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", server.port, shared=True)


async def test_a_drain_lets_running_requests_end(start: Start) -> None:
    server = await start(drain_s=5.0)
    asking = asyncio.create_task(ask(server.port, REQUEST))
    await asyncio.sleep(0.1)
    await server.close()
    assert b" 200 " in await asking


async def test_without_a_drain_they_are_cut_off(start: Start) -> None:
    server = await start()
    asking = asyncio.create_task(ask(server.port, REQUEST))
    await asyncio.sleep(0.05)
    started = asyncio.get_running_loop().time()
    await server.close()
    assert asyncio.get_running_loop().time() - started < 1.0
    asking.cancel()


async def test_write_stops_when_the_client_does_not_read(start: Start) -> None:
    server = await start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(REQUEST.replace(b"/slow", b"/write"))
    await asyncio.sleep(0.2)  # nothing is read; the server's buffers fill
    await reader.readuntil(b"\r\n\r\n")
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    data, _, written = body.rpartition(b"<")
    assert len(data) == int(written[:-1]) * 10_000
    assert 0 < int(written[:-1]) < 1000
    writer.close()


@pytest.mark.parametrize("path", [b"/raises", b"/says_nothing", b"/splits"])
async def test_an_app_that_does_not_answer_is_a_500(start: Start, path: bytes) -> None:
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    server = await start()
    said = await ask(server.port, REQUEST.replace(b"/slow", path))
    assert envelope(said, 500)["error"]["code"] == "internal_error"
    assert b"set-cookie" not in said
    assert len(reported) == (path != b"/says_nothing")


@pytest.mark.parametrize("path", [b"/stops_halfway", b"/says_too_much", b"/says_too_little"])
async def test_an_answer_that_is_not_whole_is_cut_off(start: Start, path: bytes) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    server = await start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(REQUEST.replace(b"/slow", path) + REQUEST)
    async with asyncio.timeout(3):
        said = await reader.read()
    assert said.count(b"HTTP/1.1") == 1
    assert not said.endswith(b"0\r\n\r\n")
    writer.close()


async def test_an_answer_without_a_body(start: Start) -> None:
    server = await start()
    head = REQUEST.replace(b"GET /slow", b"HEAD /")
    last = REQUEST.replace(b"/slow", b"/").replace(b"host", b"connection: close\r\nhost")
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(REQUEST.replace(b"/slow", b"/empty") + head + last)
    async with asyncio.timeout(3):
        said = await reader.read()
    writer.close()
    first, second, third, body = said.split(b"\r\n\r\n")
    assert b" 204 " in first
    assert b"transfer-encoding" not in first
    assert b"content-length: 1" in second
    assert third.startswith(b"HTTP/1.1 200 ")
    assert body == b"0"


async def test_a_client_that_reads_nothing_is_cut_off(start: Start) -> None:
    server = await start(patience=Patience(stall_s=0.3))
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1)
    for path in (b"/large", b"/"):
        writer.write(REQUEST.replace(b"/slow", path))
    await asyncio.sleep(1.0)
    size = 0
    with contextlib.suppress(ConnectionError):
        while data := await asyncio.wait_for(reader.read(1_000_000), 3):
            size += len(data)
    assert size < 20_000_000
    writer.close()


async def test_a_client_that_reads_slowly_is_not(start: Start) -> None:
    server = await start(patience=Patience(stall_s=0.3))
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1)
    writer.write(REQUEST.replace(b"/slow", b"/large"))
    size = 0
    async with asyncio.timeout(60):
        while size < 20_000_000:
            data = await reader.read(1_000_000)
            assert data, f"cut off after {size} bytes"
            size += len(data)
            await asyncio.sleep(0.01)
    writer.close()


async def test_an_idle_connection_is_closed(start: Start) -> None:
    server = await start(patience=Patience(keep_alive_s=0.2))
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(REQUEST.replace(b"/slow", b"/"))
    async with asyncio.timeout(3):
        said = await reader.read()
    assert said.count(b"HTTP/1.1") == 1
    writer.close()


async def test_a_refused_client_that_does_not_hang_up_is_hung_up_on(start: Start) -> None:
    server = await start(patience=Patience(linger_s=0.2))
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"nonsense\r\n\r\n")
    assert envelope(await reader.read(), 400)
    with pytest.raises(ConnectionError):  # noqa: PT012
        async with asyncio.timeout(3):
            while True:
                writer.write(b"x" * 1000)
                await writer.drain()
                await asyncio.sleep(0.02)
    writer.close()


async def test_a_drain_closes_what_is_idle_and_says_so_to_what_is_not(start: Start) -> None:
    server = await start(drain_s=5.0, patience=Patience(leaving_s=0.1))
    idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", server.port)
    idle_writer.write(REQUEST.replace(b"/slow", b"/"))
    await idle_reader.readuntil(b"\r\n\r\n0")
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(REQUEST * 2)
    await asyncio.sleep(0.1)
    closing = asyncio.create_task(server.close())
    assert await asyncio.wait_for(idle_reader.read(), 1) == b""
    said = await asyncio.wait_for(reader.read(), 3)
    assert said.count(b"HTTP/1.1 200") == 1
    assert b"connection: close" in said
    idle_writer.close()
    writer.close()
    await closing


async def test_what_is_idle_in_a_drain_has_its_next_request_answered(start: Start) -> None:
    """The client was told that the connection stays: it may be sending at this moment."""
    server = await start(drain_s=5.0)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(REQUEST.replace(b"/slow", b"/"))
    said = await reader.readuntil(b"\r\n\r\n0")
    assert b"connection: close" not in said
    closing = asyncio.create_task(server.close())
    await asyncio.sleep(0.05)
    writer.write(REQUEST.replace(b"/slow", b"/"))
    said = await asyncio.wait_for(reader.read(), 1)
    assert said.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in said
    writer.close()
    await closing


async def test_a_body_that_has_begun_may_be_followed_by_a_request(start: Start) -> None:
    """Its head has said that the connection stays."""
    server = await start(drain_s=5.0)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(REQUEST.replace(b"/slow", b"/twice"))
    said = await reader.readuntil(b"one")
    assert b"connection: close" not in said
    closing = asyncio.create_task(server.close())
    await reader.readuntil(b"0\r\n\r\n")
    writer.write(REQUEST.replace(b"/slow", b"/"))
    said = await asyncio.wait_for(reader.read(), 1)
    assert said.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in said
    writer.close()
    await closing


async def test_nobody_waits_for_what_is_not_used(start: Start) -> None:
    server = await start(drain_s=60.0, patience=Patience(leaving_s=0.1, linger_s=0.1))
    fresh_reader, fresh_writer = await asyncio.open_connection("127.0.0.1", server.port)
    async with asyncio.timeout(2):
        await server.close()
    assert await fresh_reader.read() == b""
    fresh_writer.close()


async def test_the_last_server_of_a_port_goes_on_accepting_while_it_leaves(start: Start) -> None:
    left = asyncio.Event()
    server = await start(
        listener=listen("127.0.0.1", shared=True), drain_s=5.0, leave_s=0.3, on_leaving=left.set
    )
    port = server.port
    closing = asyncio.create_task(server.close())
    await asyncio.wait_for(left.wait(), 1)
    said = await ask(port, REQUEST.replace(b"/slow", b"/"))
    assert said.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in said
    await closing
    with pytest.raises(ConnectionRefusedError):
        await ask(port, REQUEST)


async def test_one_that_is_followed_leaves_at_once(start: Start) -> None:
    first = await start(
        listener=listen("127.0.0.1", shared=True),
        drain_s=60.0,
        leave_s=60.0,
        on_leaving=lambda: pytest.fail("it is not the last one"),
    )
    await start(listener=listen("127.0.0.1", first.port, shared=True))
    async with asyncio.timeout(2):
        await first.close()
