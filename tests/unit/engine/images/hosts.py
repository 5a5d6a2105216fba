"""An HTTPS server on loopback that fetches reach by a name.

The doubles are DNS and, where a fetch shall succeed, the check that refuses loopback.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from serving.catalogue.spec import ImageLimits
from serving.engine.images.fetch import Fetcher
from tests.unit.engine.images.pictures import encoded

HOST = "images.example.com"
CONTENT = encoded()


class Dns(AbstractResolver):
    """Answers a name with each of its lists of addresses in turn, and keeps the last."""

    def __init__(self, **names: list[list[str]]) -> None:
        self.names = {name.replace("_", "."): answers for name, answers in names.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.append(host)
        answers = self.names.get(host, [["127.0.0.1"]])
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        pass


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Host:
    """An HTTPS server with one handler, and a fetcher that may reach it."""

    def __init__(self, certificate: Path) -> None:
        self._certificate = certificate
        self.requests: list[web.Request] = []
        self.handler: Handler = self.deliver
        self.port = 0
        self._runner: web.ServerRunner | None = None

    async def deliver(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=CONTENT)

    async def start(self) -> None:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            assert isinstance(request, web.BaseRequest)
            self.requests.append(request)  # type: ignore[arg-type]
            return await self.handler(request)  # type: ignore[arg-type]

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate)
        self._runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def url(self, path: str = "/a.png", host: str = HOST) -> str:
        return f"https://{host}:{self.port}{path}"

    def fetcher(
        self,
        *,
        hosts: tuple[str, ...] | None = None,
        accept: Callable[[str], bool] = lambda address: address == "127.0.0.1",
        trusting: bool = True,
        dns: Dns | None = None,
        **limits: Any,
    ) -> Fetcher:
        allowed = (f"*.example.com:{self.port}",) if hosts is None else hosts
        trust = ssl.create_default_context(cafile=self._certificate) if trusting else None
        return Fetcher(
            ImageLimits(allowed_hosts=allowed, **limits),
            resolver=dns or Dns(),
            accept=accept,
            trust=trust,
        )


def redirect(*locations: str) -> Handler:
    """The first request is sent to the first location, and so on; then the image."""
    left = list(locations)

    async def handle(request: web.Request) -> web.StreamResponse:
        if left:
            return web.Response(status=302, headers={"location": left.pop(0)})
        return web.Response(body=CONTENT)

    return handle
