"""Replicas that fail, engines that are slow, clients that leave or stall."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest

from serving.engine.interface import Reply, Tally
from serving.router import answer
from serving.wire.messages import Head, HttpCall
from tests.conftest import Eventually
from tests.gateway.conftest import Open, Site, events, request_head

SLOW = {"interval_s": 60}
LONG = {"interval_s": 0.005, "repeat": 500}


async def test_a_dead_engine_costs_one_retry(open_site: Open) -> None:
    site = await open_site(replicas=2)
    site.engines[0].dead = True
    for stream in (False, True) * 10:
        response = await site.complete(stream=stream)
        assert response.status_code == 200
        assert "one" in response.text
    retries = site.metrics.registry.get_sample_value("serving_retries_total", {"model": "echo"})
    assert retries == len(site.engines[0].calls) > 0
    assert site.counted(outcome="ok") == site.counted() == 20


async def test_a_request_is_sent_twice_at_most(open_site: Open) -> None:
    site = await open_site(replicas=3)
    for engine in site.engines:
        engine.dead = True
    response = await site.complete()
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "engine_failed"
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert sum(len(engine.calls) for engine in site.engines) == 2
    assert site.counted(outcome="error") == site.counted() == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_death_before_the_first_byte_is_not_seen(
    open_site: Open, eventually: Eventually, stream: bool
) -> None:
    site = await open_site(replicas=2, engine=SLOW)
    request = asyncio.create_task(site.complete(stream=stream))
    await eventually(lambda: site.running)
    hit = next(number for number, engine in enumerate(site.engines) if engine.running)
    site.engines[1 - hit].interval_s = 0
    await site.kill(hit)
    response = await request
    assert response.status_code == 200
    assert site.counted(outcome="ok") == site.counted() == 1
    await eventually(lambda: site.idle)


@pytest.mark.parametrize("stream", [False, True])
async def test_death_of_the_only_replica_before_the_first_byte(
    open_site: Open, eventually: Eventually, stream: bool
) -> None:
    site = await open_site(engine=SLOW, hold_s=0.2, hold_stream_s=0.2)
    request = asyncio.create_task(site.complete(stream=stream))
    await eventually(lambda: site.running)
    await site.kill(0)
    response = await request
    assert response.status_code == 503
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert response.json()["error"]["type"] == "overloaded_error"


async def test_death_in_the_middle_of_a_stream(open_site: Open, eventually: Eventually) -> None:
    site = await open_site(replicas=2, engine=LONG)
    body = {"model": "echo", "prompt": "one two", "stream": True}
    async with site.wire() as wire, wire.stream("POST", "/v4/completions", json=body) as response:
        pieces = response.aiter_text()
        text = await anext(pieces)
        await site.kill(next(n for n, engine in enumerate(site.engines) if engine.running))
        async for piece in pieces:
            text += piece
    assert response.status_code == 200
    *middle, (name, last) = events(text)
    assert name == "error"
    assert last["error"]["code"] == "engine_failed"
    assert last["error"]["request_id"] == response.headers["x-request-id"]
    assert last["detail"] == last["error"]["message"]
    assert all(data["completion"]["finish_reason"] is None for _, data in middle)
    assert sum(len(engine.calls) for engine in site.engines) == 1
    assert site.counted(outcome="error") == site.counted() == 1
    await eventually(lambda: site.idle)


async def test_an_openai_stream_that_fails_has_an_error_and_no_done(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def begin(call: HttpCall, body: bytes, reply: Reply, tally: Tally) -> None:
        reply.head(Head(200, (("content-type", "text/event-stream"),)))
        reply.data(b'data: {"choices": []}\n\n')
        await asyncio.Event().wait()

    monkeypatch.setattr(site.engines[0], "http", begin)
    body = {"model": "echo", "stream": True}
    async with site.wire() as wire, wire.stream("POST", "/v1/completions", json=body) as response:
        pieces = response.aiter_text()
        text = await anext(pieces)
        await site.kill(0)
        async for piece in pieces:
            text += piece
    name, last = events(text)[-1]
    assert (name, last["error"]["code"]) == ("", "engine_failed")


async def test_keepalive_comments_while_nothing_flows(open_site: Open) -> None:
    site = await open_site(engine={"interval_s": 0.5}, keepalive_s=0.1)
    frames = events((await site.complete("hello", stream=True)).text)
    assert frames[0] == frames[1] == (":", None)
    assert frames[-1][1]["completion"]["finish_reason"] == "stop"
    assert "".join(data["completion"]["text"] for _, data in frames if data) == "hello "


async def test_no_keepalive_in_a_whole_answer(open_site: Open) -> None:
    site = await open_site(engine={"interval_s": 0.25}, keepalive_s=0.1)
    assert (await site.complete("hello")).json()["completion"]["text"] == "hello "


async def test_no_keepalive_while_tokens_flow(open_site: Open) -> None:
    site = await open_site(engine={"interval_s": 0.01, "repeat": 60}, keepalive_s=0.4)
    frames = events((await site.complete("hello", stream=True)).text)
    assert (":", None) not in frames


async def test_a_failure_after_a_keepalive_is_told_in_the_stream(open_site: Open) -> None:
    site = await open_site(engine=SLOW, keepalive_s=0.05, hold_stream_s=0.2)
    body = {"model": "echo", "prompt": "p", "stream": True}
    async with site.wire() as wire, wire.stream("POST", "/v4/completions", json=body) as response:
        pieces = response.aiter_text()
        text = await anext(pieces)
        await site.kill(0)
        async for piece in pieces:
            text += piece
    frames = events(text)
    assert frames[0] == (":", None)
    assert frames[-1][0] == "error"
    assert site.counted(outcome="ok") == 0
    assert site.counted() == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_ends_the_request(
    open_site: Open, eventually: Eventually, stream: bool
) -> None:
    site = await open_site(engine=SLOW, request_timeout_s=0.5, keepalive_s=0.05)
    async with asyncio.timeout(2):
        response = await site.complete(stream=stream)
    if stream:
        assert events(response.text)[-1][1]["error"]["code"] == "deadline_exceeded"
    else:
        assert response.status_code == 504
    assert site.counted(outcome="error") == site.counted() == 1
    await eventually(lambda: site.idle, 1)


# clients that leave


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v4/completions", "/v1/completions"])
async def test_a_client_that_leaves_frees_the_engine(
    open_site: Open, eventually: Eventually, stream: bool, path: str
) -> None:
    site = await open_site(engine=SLOW)
    _, writer = await site.connect()
    data = json.dumps({"model": "echo", "prompt": "one two", "stream": stream}).encode()
    headers = {"content-length": str(len(data)), "x-api-key": "sk-any"}
    writer.write(request_head(headers, path) + data)
    await eventually(lambda: site.running == 1)
    writer.close()
    await eventually(lambda: site.idle, 1)
    assert site.counted(outcome="cancelled", endpoint=path) == site.counted() == 1


async def test_a_client_that_leaves_in_the_middle_of_its_stream(
    open_site: Open, eventually: Eventually
) -> None:
    site = await open_site(engine=LONG)
    reader, writer = await site.send(stream=True)
    await reader.readuntil(b"data: ")
    assert site.running == 1
    writer.close()
    await eventually(lambda: site.idle, 1)
    assert site.counted(outcome="cancelled") == site.counted() == 1


async def test_a_client_that_leaves_before_its_body_is_complete(
    site: Site, eventually: Eventually
) -> None:
    _, writer = await site.connect()
    writer.write(request_head({"content-length": "1000", "x-api-key": "sk-any"}) + b"{")
    await writer.drain()
    writer.close()
    await eventually(lambda: site.counted() == 1)
    assert site.counted(outcome="cancelled") == 1


# clients that stall


async def stalled(site: Site, **body: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a completion whose answer nobody reads yet."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", await site.listen()))
    data = json.dumps({"model": "echo", "stream": True, **body}).encode()
    headers = {"content-length": str(len(data)), "x-api-key": "sk-any", "connection": "close"}
    await loop.sock_sendall(sock, request_head(headers) + data)
    return await asyncio.open_connection(sock=sock, limit=1024)


async def test_a_slow_reader_gets_everything_and_holds_up_nobody(
    open_site: Open, eventually: Eventually
) -> None:
    site = await open_site(engine={"repeat": 30})
    reader, writer = await stalled(site, prompt="x" * 50_000)
    await eventually(lambda: site.running == 0 and site.engines[0].calls)
    assert (await site.complete()).status_code == 200
    data = b""
    while piece := await reader.read(4096):
        data += piece
    assert data.count(b"x" * 1000) >= 30 * 40
    assert b'"finish_reason":"stop"' in data
    writer.close()
    await eventually(lambda: site.counted(outcome="ok") == 2)


async def test_a_reader_that_stalls_too_long_is_given_up(
    open_site: Open, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer, "MAX_UNREAD", 1_000_000)
    site = await open_site(engine={"repeat": 1_000_000})  # as good as endless: 50 GB
    parameters = {"max_tokens": 1_000_000}
    _, writer = await stalled(site, prompt="x" * 50_000, model_parameters=parameters)
    await eventually(lambda: site.engines[0].calls)
    await eventually(lambda: site.running == 0)
    assert (await site.complete(model_parameters={"max_tokens": 1})).status_code == 200
    writer.transport.abort()
    await eventually(lambda: site.idle, 2)
    assert site.counted() == 2


# answers in pieces


class Pieces:
    """`EchoEngine.http` that writes a whole answer in pieces, as vLLM's app may."""

    def __init__(self, *pieces: bytes, status: int = 200) -> None:
        self.pieces = pieces
        self.status = status

    async def __call__(self, call: HttpCall, body: bytes, reply: Reply, tally: Tally) -> None:
        reply.head(Head(self.status, (("content-type", "application/json"),)))
        for piece in self.pieces:
            await asyncio.sleep(0.02)
            reply.data(piece)
        await asyncio.sleep(0.02)


async def test_a_whole_answer_may_come_in_pieces(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site.engines[0], "http", Pieces(b'{"a":', b" 1}"))
    async with site.wire() as wire:
        response = await wire.post("/v1/completions", json={"model": "echo"})
    assert response.json() == {"a": 1}
    assert response.headers["content-length"] == "8"


@pytest.mark.parametrize(("status", "outcome"), [(400, "rejected"), (500, "error")])
async def test_an_engines_own_error_status_is_passed_on(
    site: Site, monkeypatch: pytest.MonkeyPatch, status: int, outcome: str
) -> None:
    monkeypatch.setattr(site.engines[0], "http", Pieces(b'{"error": {}}', status=status))
    response = await site.client.post("/v1/completions", json={"model": "echo", "stream": True})
    assert response.status_code == status
    assert response.json() == {"error": {}}
    assert site.counted(outcome=outcome) == site.counted() == 1


async def test_a_client_that_reads_nothing_is_treated_as_gone(
    open_site: Open, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await open_site(engine={"repeat": 500}, keepalive_s=0.05)
    monkeypatch.setattr("serving.router.response.STALL_S", 0.2)
    _, writer = await stalled(site, prompt="x" * 50_000)
    await eventually(lambda: site.counted(outcome="cancelled") == 1)
    await eventually(lambda: site.idle)
    assert not writer.is_closing(), "the connection was still open"
    assert site.counted() == 1
    writer.close()


async def test_a_refusal_after_a_keepalive_is_an_event(
    open_site: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(Pieces):
        async def __call__(self, call: HttpCall, body: bytes, reply: Reply, tally: Tally) -> None:
            await asyncio.sleep(0.15)
            await super().__call__(call, body, reply, tally)

    site = await open_site(keepalive_s=0.05)
    monkeypatch.setattr(site.engines[0], "http", Late(b'{"error": {"code": 400}}', status=400))
    response = await site.client.post("/v1/completions", json={"model": "echo", "stream": True})
    assert response.status_code == 200
    assert events(response.text)[-1] == ("", {"error": {"code": 400}})
    assert site.counted(outcome="rejected") == site.counted() == 1
