"""A client that leaves frees the engine at once and is counted as cancelled, once."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

from tests.live import BASE, ENDLESS, ENDLESS_V1, KEY, PIRATE, Server, poll

FREE_WITHIN_S = 1.0
CLIENTS = 6
# The tiny model ends the longest completion it can give within seconds: on a machine busy with
# something else a request can end before its client leaves, and then there is nothing to see.
TRIES = 4


def request_bytes(path: str, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: test\r\nx-api-key: {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def body_of(path: str, model: str, stream: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "prompt": "Once upon a time", "stream": stream}
    return body | ({"model_parameters": ENDLESS} if path.startswith("/v4") else ENDLESS_V1)


def answered(client: socket.socket) -> bool:
    """Whether the whole answer lies here already, unread."""
    try:
        received = client.recv(1 << 20, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    whole = b"application/json" in received
    return whole or received.endswith(b"\r\n0\r\n\r\n")  # the last chunk of a stream (RFC 9112)


@pytest.mark.parametrize("entry", ["shared", "own"])
@pytest.mark.parametrize("model", [BASE, PIRATE])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("path", ["/v4/completions", "/v1/completions"])
def test_a_client_that_leaves_frees_the_engine(
    live: Server,
    path: str,
    stream: bool,
    model: str,
    entry: str,
    record_property: Any,
) -> None:
    poll(live.idle, 10, "nothing runs")
    url = live.url if entry == "shared" else live.routers()[0].url
    host, port = url.removeprefix("http://").split(":")
    routers, engines = live.routers(), live.engines(BASE)
    outcomes = ("ok", "cancelled", "error", "rejected")

    def counted() -> dict[str, float]:
        return {outcome: live.counted(routers, outcome=outcome) for outcome in outcomes}

    def called() -> dict[str, float]:
        return {
            outcome: sum(live.calls(engine, outcome=outcome) for engine in engines)
            for outcome in outcomes
        }

    def running() -> float:
        return sum(live.engine_running(engine) for engine in engines)

    for _ in range(TRIES):
        counted_before, called_before = counted(), called()
        clients = [socket.create_connection((host, int(port)), timeout=30) for _ in range(CLIENTS)]
        try:
            for client in clients:
                client.sendall(request_bytes(path, body_of(path, model, stream)))
            poll(
                lambda: running() == CLIENTS or any(map(answered, clients)),
                30,
                f"{CLIENTS} requests run",
            )
            if stream:
                for client in clients:
                    assert client.recv(1, socket.MSG_PEEK)
            too_late = any(map(answered, clients))
        finally:
            for client in clients:
                client.close()
        left = time.monotonic()
        poll(lambda: running() == 0, 10, "the engines are free")
        free_s = time.monotonic() - left
        # A replica reports its scheduler's counts once a second when nothing else changes.
        poll(live.idle, 2 * FREE_WITHIN_S, "every router knows it")

        def accounted() -> bool:
            return sum(counted().values()) >= sum(counted_before.values()) + CLIENTS

        poll(accounted, 5, "every request is counted")
        if not too_late:
            break
    record_property("free_s", round(free_s, 3))
    assert free_s < FREE_WITHIN_S
    expected = {"ok": 0, "cancelled": CLIENTS, "error": 0, "rejected": 0}
    assert {name: counted()[name] - counted_before[name] for name in outcomes} == expected
    assert {name: called()[name] - called_before[name] for name in outcomes} == expected
    print(f"free after {free_s:.3f} s")
