"""A client that leaves frees the engine at once, and is counted as cancelled, once, with the tokens
that the engine has made."""

from __future__ import annotations

import json
import select
import socket
import time
from dataclasses import dataclass
from typing import Any

import pytest

from tests.live import BASE, ENDLESS, ENDLESS_V1, KEY, PIRATE, Server, poll

FREE_WITHIN_S = 1.0
CLIENTS = 6
OUTCOMES = ("ok", "cancelled", "error", "rejected")
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
    if path == "/v1/responses":
        ends = {"max_output_tokens": ENDLESS_V1["max_tokens"]}
        return {"model": model, "input": "France", "stream": stream, **ENDLESS_V1, **ends}
    return body | ({"model_parameters": ENDLESS} if path.startswith("/v4") else ENDLESS_V1)


class Client:
    """One connection that reads whatever comes: a client that does not read stops its stream."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.received = bytearray()

    def read(self) -> bool:
        """Read what has come; True once the whole response is here."""
        while select.select([self.socket], [], [], 0)[0] and (data := self.socket.recv(1 << 20)):
            self.received += data
        whole = b"application/json" in self.received
        # The last chunk of a stream (RFC 9112).
        return whole or self.received.endswith(b"\r\n0\r\n\r\n")

    @property
    def streams(self) -> bool:
        return b"data:" in self.received


@pytest.mark.parametrize("entry", ["shared", "own"])
@pytest.mark.parametrize("model", [BASE, PIRATE])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("path", ["/v4/completions", "/v1/completions", "/v1/responses"])
def test_a_client_that_leaves_frees_the_engine(
    live: Server,
    path: str,
    stream: bool,
    model: str,
    entry: str,
    record_property: Any,
) -> None:
    url = live.url if entry == "shared" else live.routers()[0].url
    request = request_bytes(path, body_of(path, model, stream))
    for _ in range(TRIES):
        seen = all_leave(live, url, request, stream)
        if not seen.too_late:
            break
    record_property("free_s", round(seen.free_s, 3))
    assert seen.free_s < FREE_WITHIN_S
    # What was never sent counts too: it is what the engine made until it stopped.
    assert seen.tokens == seen.generated > 0
    expected = {"ok": 0, "cancelled": CLIENTS, "error": 0, "rejected": 0}
    assert seen.counted == expected
    assert seen.called == expected
    print(f"free after {seen.free_s:.3f} s")


@dataclass(frozen=True)
class Seen:
    """What is seen after all clients have left at once."""

    too_late: bool  # some had their whole answer before they left
    free_s: float  # until no engine works
    counted: dict[str, float]  # by the routers, by outcome
    called: dict[str, float]  # by the engines, by outcome
    tokens: float  # of completions, as the routers have counted them
    generated: float  # tokens, as vLLM has


def all_leave(live: Server, url: str, request: bytes, stream: bool) -> Seen:
    poll(live.idle, 10, "nothing runs")
    routers, engines = live.routers(), live.engines(BASE)

    def counted(outcome: str) -> float:
        return live.counted(routers, outcome=outcome)

    def called(outcome: str) -> float:
        return sum(live.calls(engine, outcome=outcome) for engine in engines)

    def tokens() -> float:
        name = "serving_completion_tokens_total"
        return sum(live.sample(router, name, model=BASE) for router in routers)

    def generated() -> float:
        return sum(live.sample(engine, "vllm:generation_tokens_total") for engine in engines)

    def running() -> float:
        return sum(live.engine_running(engine) for engine in engines)

    def accounted() -> bool:
        return sum(map(counted, OUTCOMES)) >= sum(counted_before.values()) + CLIENTS

    counted_before = {outcome: counted(outcome) for outcome in OUTCOMES}
    called_before = {outcome: called(outcome) for outcome in OUTCOMES}
    tokens_before, generated_before = tokens(), generated()
    clients = [Client(url) for _ in range(CLIENTS)]

    def one_is_answered() -> bool:
        answered = [client.read() for client in clients]  # every one, so that no stream stops
        return any(answered)

    def all_run() -> bool:
        begun = not stream or all(client.streams for client in clients)
        return one_is_answered() or (running() == CLIENTS and begun)

    try:
        for client in clients:
            client.socket.sendall(request)
        poll(all_run, 30, f"{CLIENTS} requests run")
        too_late = one_is_answered()
    finally:
        for client in clients:
            client.socket.close()
    left = time.monotonic()
    poll(lambda: running() == 0, 10, "the engines are free")
    free_s = time.monotonic() - left
    # A replica reports its scheduler's counts once a second when nothing else changes.
    poll(live.idle, 2 * FREE_WITHIN_S, "every router knows it")
    poll(accounted, 5, "every request is counted")
    return Seen(
        too_late,
        free_s,
        {outcome: counted(outcome) - counted_before[outcome] for outcome in OUTCOMES},
        {outcome: called(outcome) - called_before[outcome] for outcome in OUTCOMES},
        tokens() - tokens_before,
        generated() - generated_before,
    )
