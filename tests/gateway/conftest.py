"""A router in process, with real links over loopback TCP to echo engines."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from serving.catalogue.catalogue import Catalogue
from serving.engine.echo import EchoEngine
from serving.engine.link_server import LinkServer
from serving.observability.logs import Log, open_log
from serving.router.admission import Policy
from serving.router.router import Router
from serving.settings import Settings
from serving.wire.entry import Entry
from tests.conftest import Eventually

KEY = {"x-api-key": "sk-any"}
# The engine of `link`.
REPEATS = {"id": "echo", "weights": "none", "context": 2000, "engine_args": {"interval_s": 0.002}}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """HTTP itself is tested on the routers' event loop."""
    if item.path.name.startswith(("test_http", "test_fuzz_http")):
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


class Site:
    """One router and the replicas of model `echo`, the base of adapter `echo.pirate`. `hosted` adds
    providers, their models and aliases to the catalogue."""

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        engine_args: dict[str, Any],
        hosted: dict[str, Any],
        policy: Policy | None,
        double: type[EchoEngine] = EchoEngine,
        spec: dict[str, Any] | None = None,
        drain_s: float = 0.0,
        leave_s: float = 0.0,
    ) -> None:
        self.double = double
        defaults = {
            "host": "127.0.0.1",
            "port": 0,
            "api_keys": "sk-any,sk-acme:acme",
            "cluster_token": "token",
        }
        self.settings = Settings(**{**defaults, **settings})
        self.log_folder = folder / "logs"
        self.log = open_log("gateway-test", str(self.log_folder))
        engine = {
            "kind": "engine",
            "id": "echo",
            "weights": "w",
            "context": 2000,
            "lora": {},
            "engine_args": engine_args,
            **(spec or {}),
        }
        adapter = {
            "kind": "adapter",
            "id": "echo.pirate",
            "base": "echo",
            "weights": "/w/pirate",
            "revision": "v7",
        }
        self.catalogue = Catalogue.model_validate(
            {
                **hosted,
                "models": [engine, adapter, *hosted.get("models", ())],
                "aliases": {"latest": "echo.pirate", **hosted.get("aliases", {})},
            }
        )
        self.engines: list[EchoEngine] = []
        self.servers: list[LinkServer] = []
        self.entries: list[Entry] = []
        self.wanted: dict[str, bool] = {}
        self.router = Router(
            self.settings,
            router="r1",
            own_host="127.0.0.1",
            drain_s=drain_s,
            leave_s=leave_s,
            log=self.log,
            want=self.wanted.__setitem__,
            policy=policy,
            rng=random.Random(1),
        )
        self.metrics, self.fleet = self.router.metrics, self.router.fleet
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.router.pipeline, raise_app_exceptions=True),
            base_url="http://gateway",
            headers=KEY,
        )
        self._starting = asyncio.Lock()
        self._closed = False

    async def add_replica(self) -> EchoEngine:
        engine = self.double(self.catalogue.engines[0])
        number = len(self.servers) + 1
        server = LinkServer(
            engine,
            replica=f"echo#{number}",
            model="echo",
            token="token",
            log=self.log,
            on_call_end=lambda _: None,
        )
        port = await server.start("127.0.0.1")
        self.engines.append(engine)
        self.servers.append(server)
        self.entries.append(
            Entry(f"echo#{number}", "engine", "echo", "127.0.0.1", port, f"127.0.0.1:{port + 1}")
        )
        self.fleet.update(self.entries)
        return engine

    async def kill(self, number: int) -> None:
        """Close a replica's connections without a word, as its death does."""
        await self.servers[number].close()

    async def listen(self) -> int:
        """The port that callers use of a real HTTP server with the router; the first call starts
        it."""
        async with self._starting:
            if not self.router.serving:
                await self.router.start()
        return self.router.port

    async def close_router(self) -> None:
        """Close the router; a second call does nothing."""
        if not self._closed:
            self._closed = True
            await self.router.close()

    async def close(self) -> None:
        await self.client.aclose()
        await self.close_router()
        for server in self.servers:
            await server.close()

    # what happened

    def counted(self, **labels: str) -> float:
        """Requests counted with these labels."""
        (family,) = self.metrics.requests.collect()
        return sum(
            sample.value
            for sample in family.samples
            if sample.name == "serving_requests_total" and labels.items() <= sample.labels.items()
        )

    @property
    def in_flight(self) -> float:
        value = self.metrics.registry.get_sample_value
        return value("serving_requests_in_flight", {"model": "echo"}) or 0

    @property
    def running(self) -> int:
        return sum(engine.running for engine in self.engines)

    @property
    def idle(self) -> bool:
        """True if nothing is left of any request, on either side of the links."""
        busy = [link.in_flight for link in self.fleet.links("echo")]
        accepted = [server.in_flight for server in self.servers]
        return not (self.running or self.in_flight or any(busy) or any(accepted))

    def log_text(self) -> str:
        return "".join(file.read_text() for file in self.log_folder.iterdir())

    # requests

    async def complete(self, prompt: str = "one two three", **fields: Any) -> httpx.Response:
        body = {"model": "echo", "prompt": prompt, **fields}
        return await self.client.post("/v4/completions", json=body)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", await self.listen())

    @asynccontextmanager
    async def wire(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client of the real HTTP server."""
        base = f"http://127.0.0.1:{await self.listen()}"
        async with httpx.AsyncClient(base_url=base, headers=KEY, timeout=10) as client:
            yield client

    async def send(
        self, *, key: str = "sk-any", **body: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send one completion over a connection of its own."""
        reader, writer = await self.connect()
        data = json.dumps({"model": "echo", "prompt": "one two three", **body}).encode()
        writer.write(request_head({"content-length": str(len(data)), "x-api-key": key}) + data)
        await writer.drain()
        return reader, writer


def request_head(headers: dict[str, str], path: str = "/v4/completions") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: gateway", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def events(text: str) -> list[tuple[str, Any]]:
    """The (event name, decoded data) of every frame; comments are (":", None)."""
    assert text.endswith("\n\n"), "a frame without its blank line"
    found: list[tuple[str, Any]] = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        if block.startswith(":"):
            found.append((":", None))
            continue
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        assert set(fields) <= {"event", "data"}, "no id:, no retry:"
        data = fields["data"]
        found.append((fields.get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return found


Open = Callable[..., Awaitable[Site]]


@pytest.fixture
async def open_site(tmp_path: Path, eventually: Eventually) -> AsyncIterator[Open]:
    """Makes a site: `await open_site(replicas=2, engine={"interval_s": 1}, keepalive_s=0.1)`."""
    sites: list[Site] = []

    async def open_it(
        replicas: int = 1,
        engine: dict[str, Any] | None = None,
        hosted: dict[str, Any] | None = None,
        spec: dict[str, Any] | None = None,
        policy: Policy | None = None,
        double: type[EchoEngine] = EchoEngine,
        drain_s: float = 0.0,
        leave_s: float = 0.0,
        **settings: Any,
    ) -> Site:
        site = Site(
            tmp_path, settings, engine or {}, hosted or {}, policy, double, spec, drain_s, leave_s
        )
        sites.append(site)
        await site.router.set_catalogue(site.catalogue)
        for _ in range(replicas):
            await site.add_replica()
        await eventually(lambda: site.fleet.ready("echo") == replicas)
        return site

    yield open_it
    for site in sites:
        await site.close()


@pytest.fixture
async def site(open_site: Open) -> Site:
    """One replica, default settings."""
    return await open_site()


@pytest.fixture
async def link(log: Log) -> AsyncIterator[int]:
    """The port of an engine server with an engine that repeats."""
    spec = Catalogue.model_validate({"models": [{"kind": "engine", **REPEATS}]}).engines[0]
    server = LinkServer(
        EchoEngine(spec), replica="echo#1", model="echo", token="token", log=log,
        on_call_end=lambda _: None,
    )  # fmt: skip
    yield await server.start("127.0.0.1")
    await server.close()
