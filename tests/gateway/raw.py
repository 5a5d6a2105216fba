"""Requests as bytes, and what the server says to them."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable

import pytest

from tests.gateway.conftest import Site, request_head
from tests.gateway.responses import Said, responses

KEY = {"x-api-key": "sk-any"}
BODY = json.dumps({"model": "echo", "prompt": "one two three"}).encode()
STREAM = json.dumps({"model": "echo", "prompt": "one two three", "stream": True}).encode()
HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
LAST = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"

# What is noticed at once is noticed after so few turns of the event loop, of 5 ms each.
SOON_TURNS = 20


def post(body: bytes = BODY, path: str = "/v4/completions", **headers: str) -> bytes:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if "transfer-encoding" not in named:
        named.setdefault("content-length", str(len(body)))
    return request_head({**KEY, **named}, path) + body


def chunked(body: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (1, body[at : at + 1]) for at in range(len(body)))


async def ask(site: Site, *parts: bytes, within_s: float = 5.0, pause_s: float = 0.0) -> list[Said]:
    """What the server says to `parts` until it closes."""
    reader, writer = await site.connect()
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(pause_s)
        async with asyncio.timeout(within_s):
            return responses(await reader.read())
    finally:
        writer.close()


async def refused(site: Site, *parts: bytes) -> Said:
    """The one refusal that `parts` get."""
    (said,) = await ask(site, *parts)
    said.check_refusal()
    return said


async def soon(condition: Callable[[], bool]) -> None:
    """Wait for what comes at once, not with the next look at a clock: in turns of the event loop,
    which client and server share, so that a machine that is busy elsewhere does not count. On one
    that is not they are `SOON_TURNS * 5` ms."""
    for _ in range(SOON_TURNS):
        if condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail(f"not within {SOON_TURNS} turns of the event loop")


def counted_by_outcome(site: Site) -> dict[str, float]:
    (family,) = site.metrics.requests.collect()
    found: dict[str, float] = {}
    for sample in family.samples:
        if sample.name == "serving_requests_total":
            outcome = sample.labels["outcome"]
            found[outcome] = found.get(outcome, 0) + sample.value
    return found


def reset(writer: asyncio.StreamWriter) -> None:
    """Leave with a RST, as a killed client does."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
