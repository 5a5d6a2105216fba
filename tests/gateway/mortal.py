"""Engines that die of a marked request: in the step that first runs it, or in a later one.

What a replica's process does when its engine has died, and what replaces it, is played by
`Supervisor`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from serving.catalogue.spec import EngineSpec
from serving.engine.echo import EchoEngine
from serving.engine.interface import Emit, Reply, Suspect, Tally
from serving.engine.server import CHECK_INTERVAL_S
from serving.errors import EngineFailed
from serving.wire.messages import CompletionCall, HttpCall
from tests.gateway.conftest import Site

MARK = "poison"
# So long that it runs until a later step.
LATE_PROMPT = f"{MARK} " * 20
STEP_S = 0.01
RESTART_S = 0.5


class MortalEngine(EchoEngine):
    """Dies in its first step of a call whose prompt or body has the mark, and accuses that call."""

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec)
        self.died_of: list[Suspect] = []

    async def generate(self, call: CompletionCall, emit: Emit, tally: Tally) -> None:
        if MARK in call.prompt:
            await self._die_of(Suspect(call, b""))
        await super().generate(call, emit, tally)

    async def http(self, call: HttpCall, body: bytes, reply: Reply, tally: Tally) -> None:
        if MARK.encode() in body:
            await self._die_of(Suspect(call, body))
        await super().http(call, body, reply, tally)

    async def _die_of(self, suspect: Suspect) -> None:
        await self.check()
        self.calls.append(suspect.call)
        await asyncio.sleep(self.interval_s)
        await self.check()
        self.dead = True
        self.died_of.append(suspect)
        raise EngineFailed("the engine is dead")

    def suspects(self) -> Sequence[Suspect]:
        return self.died_of


class LateEngine(EchoEngine):
    """Dies when a call whose prompt has the mark has made `AT` tokens, and can tell no more than
    which calls it was running, and how far each was."""

    AT = 5

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec)
        self.works: dict[int, tuple[CompletionCall, Tally]] = {}
        self.died_of: list[Suspect] = []

    async def generate(self, call: CompletionCall, emit: Emit, tally: Tally) -> None:
        self.works[id(call)] = (call, tally)
        try:
            await super().generate(call, emit, tally)
        finally:
            del self.works[id(call)]

    async def _step(self) -> None:
        await asyncio.sleep(self.interval_s)
        await self.check()
        works = self.works.values()
        if any(MARK in call.prompt and tally.completion_tokens >= self.AT for call, tally in works):
            self.dead = True
            self.died_of += [Suspect(call, b"", tally.completion_tokens) for call, tally in works]
            await self.check()

    def suspects(self) -> Sequence[Suspect]:
        return self.died_of


class Supervisor:
    """Ends each replica whose engine has died, as its server does, and starts another."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.lost: set[str] = set()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S / 2)
            for number, engine in enumerate(self.site.engines):
                name = f"echo#{number + 1}"
                if engine.dead and name not in self.lost:
                    self.lost.add(name)
                    await self._replace(number, name)

    async def _replace(self, number: int, name: str) -> None:
        self.site.servers[number].blame.tell()
        await asyncio.sleep(CHECK_INTERVAL_S)
        await self.site.kill(number)
        self.site.entries[:] = [entry for entry in self.site.entries if entry.id != name]
        self.site.fleet.update(self.site.entries)
        await asyncio.sleep(RESTART_S)
        await self.site.add_replica()


@contextlib.asynccontextmanager
async def supervised(site: Site) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(site)
    task = asyncio.create_task(supervisor.run())
    yield supervisor
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def counted(site: Site, name: str) -> float:
    return site.metrics.registry.get_sample_value(name, {"model": "echo"}) or 0
