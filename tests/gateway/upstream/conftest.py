"""Hosted providers through a whole router: a real HTTP server in front, doubles of the providers
behind, loopback TCP between."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Eventually
from tests.gateway.conftest import KEY, Open, Site, events, request_head
from tests.providers import WORDS, Double, open_double

TEXT = "".join(WORDS)
DIALECTS = ("openai", "anthropic", "gemini")
CANARY = "canary-prompt"
CHAT = {"messages": [{"role": "user", "content": CANARY}]}


class World:
    """A router, a double per dialect, a client. `m-DIALECT` is called `their-DIALECT` there."""

    def __init__(self, site: Site, doubles: dict[str, Double], wire: httpx.AsyncClient) -> None:
        self.site = site
        self.doubles = doubles
        self.wire = wire

    @property
    def openai(self) -> Double:
        return self.doubles["openai"]

    async def complete(self, dialect: str = "openai", **fields: Any) -> httpx.Response:
        body = {"model": f"m-{dialect}", "prompt": CANARY, **fields}
        return await self.wire.post("/v4/completions", json=body)

    async def chat(self, dialect: str = "openai", **fields: Any) -> httpx.Response:
        body = {"model": f"m-{dialect}", **CHAT, **fields}
        return await self.wire.post("/v1/chat/completions", json=body)

    async def legacy(self, dialect: str = "openai", **fields: Any) -> httpx.Response:
        body = {"model": f"m-{dialect}", "prompt": CANARY, **fields}
        return await self.wire.post("/v1/completions", json=body)

    def metric(self, name: str, **labels: str) -> float:
        return self.site.metrics.registry.get_sample_value(name, labels) or 0.0

    def attempts(self, result: str, provider: str = "openai") -> float:
        return self.metric("serving_upstream_attempts_total", provider=provider, result=result)

    @property
    def idle(self) -> bool:
        clients = self.site.router.hosted._clients.values()
        replicas = self.site.router.hosted.replicas.values()
        return not any(c.in_flight or c.waiting for c in clients) and not any(
            r.in_flight for r in replicas
        )

    def log_lines(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.site.log_text().splitlines()]
        return [line for line in lines if line["event"] == event]


Start = Callable[..., Awaitable[World]]


@pytest.fixture
async def start(
    open_site: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> AsyncIterator[Start]:
    """`await start(max_retries=0)`: a world whose providers have these settings."""
    worlds: list[World] = []
    async with AsyncExitStack() as stack:

        async def start_it(*, gateway: dict[str, Any] | None = None, **settings: Any) -> World:
            doubles = {name: await open_double(name) for name in DIALECTS}
            providers = {}
            for name, double in doubles.items():
                (key,) = double.keys
                monkeypatch.setenv(f"KEY_OF_{name.upper()}", key)
                providers[name] = {
                    "dialect": name,
                    "base_url": double.base_url,
                    "api_key_env": f"KEY_OF_{name.upper()}",
                    **settings,
                }
            models = [
                {"kind": "upstream", "id": f"m-{name}", "provider": name, "vision": True,
                 "model": f"their-{name}", "max_output": 777}
                for name in DIALECTS
            ]  # fmt: skip
            retired = {"kind": "retired", "id": "old-one", "provider": "openai",
                       "retired_on": "2024-01-04"}  # fmt: skip
            hosted = {
                "models": [*models, retired],
                "providers": providers,
                "aliases": {"old-one": "m-openai"},
                "router": {"replicas": 1},
            }
            site = await open_site(hosted=hosted, **(gateway or {}))
            wire = await stack.enter_async_context(site.wire())
            worlds.append(World(site, doubles, wire))
            return worlds[-1]

        yield start_it
        for world in worlds:
            # Whatever happened, no turn stays taken and neither a key nor a prompt is in the log.
            await eventually(lambda world=world: world.idle, 2)
            text = world.site.log_text()
            assert CANARY not in text
            assert "0123456789" not in text
            assert all(not d.at_once for d in world.doubles.values())
    servers = [double.server for world in worlds for double in world.doubles.values()]
    servers += [server for world in worlds for server in world.site.router.servers]
    await asyncio.gather(*(server.close() for server in servers))


@pytest.fixture
async def world(start: Start) -> World:
    return await start(max_retries=0)


def text_of(response: httpx.Response) -> str:
    return "".join(data["completion"]["text"] for _, data in events(response.text))


async def open_request(
    site: Site, path: str, body: dict[str, Any], buffer: int = 0
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    sock = socket.socket()
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", await site.listen()))
    data = json.dumps(body).encode()
    head = request_head({"content-length": str(len(data)), "connection": "close", **KEY}, path)
    await loop.sock_sendall(sock, head + data)
    return await asyncio.open_connection(sock=sock, limit=1024)
