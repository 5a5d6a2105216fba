"""Where routers connect to an engine server, and what all of them are told about its load."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import msgspec

from serving.engine.interface import Engine
from serving.engine.link import Link
from serving.engine.strangers import Strangers
from serving.engine.suspects import Blame
from serving.errors import EngineFailed, ServingError
from serving.observability.logs import Log, Sparing
from serving.wire.frames import FrameError, Kind
from serving.wire.messages import Call, Load, Welcome

# A load report is sent when something changed, at most this often, and at least once a second:
# silence for longer tells a router that the replica hangs.
LOAD_INTERVAL_S = 0.02
HEARTBEAT_S = 1.0
# Links of routers, which have shown the token.
MAX_LINKS = 1024

_encode = msgspec.json.encode


class LinkServer:
    """Accepts links for one engine and tells every router how busy the engine is."""

    def __init__(
        self,
        engine: Engine,
        *,
        replica: str,
        model: str,
        token: str,
        log: Log,
        on_call_end: Callable[[str], None],
    ) -> None:
        self.engine = engine
        self.token = token
        self.log = log
        self.on_call_end = on_call_end
        self._replica = replica
        self._model = model
        self.refused = Sparing(log)
        self._links: set[Link] = set()
        self.strangers = Strangers()
        self._draining = False
        self.blame = Blame(engine, self._broadcast, log)
        self._dirty = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._reporter: asyncio.Task[None] | None = None

    @property
    def in_flight(self) -> int:
        return sum(link.in_flight for link in self._links)

    async def start(self, host: str, port: int = 0) -> int:
        """Listen; returns the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Link(self), host, port)
        self._reporter = loop.create_task(self._report())
        return int(self._server.sockets[0].getsockname()[1])

    async def drain(self, timeout_s: float) -> None:
        """Tell the routers to send nothing more and wait for what is running."""
        self._draining = True
        self.changed()
        deadline = time.monotonic() + timeout_s
        while self.in_flight and time.monotonic() < deadline:
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        if self._reporter is not None:
            self._reporter.cancel()
        if self._server is not None:
            self._server.close()
        for link in list(self._links):
            link.close()
        for stranger in self.strangers:
            stranger.refuse("this replica stops")

    # called by links

    def welcome(self, link: Link) -> None:
        """Called for a link whose HELLO is right.

        Raises:
            FrameError: there are too many.
        """
        if len(self._links) >= MAX_LINKS:
            raise FrameError(f"there are {MAX_LINKS} links already")
        self.strangers.discard(link)
        self._links.add(link)
        longest = self.engine.max_model_len
        hello = Welcome(self._replica, self._model, longest, self._load(link), takes_parts=True)
        link.outbox.send(Kind.WELCOME, 0, _encode(hello))
        self.log.info("link_opened", router=link.router)

    def forget(self, link: Link) -> None:
        self.strangers.discard(link)
        if link in self._links:
            self._links.discard(link)
            self.changed()
            self.log.info("link_closed", router=link.router)

    async def failed(self, call: Call, error: EngineFailed) -> ServingError:
        """What a call fails with that ended in `error`. If the engine is dead, no router sends
        anything more here: calls that fail at once would make it the least busy replica."""
        blamed = self.blame.error(call, error)
        try:
            await self.engine.check()
        except EngineFailed:
            if not self._draining:
                self._draining = True
                self._send_load()
        return blamed

    def _broadcast(self, kind: Kind, payload: bytes) -> None:
        for link in self._links:
            link.outbox.send(kind, 0, payload)

    def changed(self) -> None:
        self._dirty.set()

    def _load(self, link: Link) -> Load:
        load = self.engine.load()
        return Load(
            in_flight=self.in_flight,
            yours=link.in_flight,
            routers=len(self._links),
            running=load.running,
            waiting=load.waiting,
            adapters=load.adapters,
            draining=self._draining,
        )

    def _send_load(self) -> None:
        for link in self._links:
            link.outbox.send(Kind.LOAD, 0, _encode(self._load(link)))

    async def _report(self) -> None:
        while True:
            # Not `wait_for`: on Python 3.11 it loses a cancellation that comes with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._dirty.wait()
            self._dirty.clear()
            self._send_load()
            await asyncio.sleep(LOAD_INTERVAL_S)
