"""Somebody who asks an engine for small things while hostile bodies are answered beside him."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import time
from typing import Any

from serving.engine.interface import Engine, Tally
from serving.wire.messages import Head, HttpCall

# A request that waits for something other than work ends too, in seconds.
PATIENCE_S = 60.0
# The longest that may pass, in seconds on the wall, which also count what a busy machine does
# meanwhile: before the first piece of half the answers, before 95 of 100 of the next pieces, and
# before any. On two cores that do little else they are 0.07, 0.013 and 0.3 at most.
MEDIAN_S = 0.4
MOST_S = 0.1
WORST_S = 3.0


class Stamped:
    """An answer, and when each piece of it came."""

    writable = True

    def __init__(self) -> None:
        self.status: int | None = None
        self.body = b""
        self.at = [time.monotonic()]

    def head(self, head: Head) -> None:
        self.status = head.status

    def data(self, data: bytes) -> None:
        self.body += data
        self.at.append(time.monotonic())

    async def drained(self) -> None:
        pass


class Bystander:
    """`gaps_s`: how long each piece of his answers came after the one before; `firsts_s`: how long
    he waited for the first, which for what is not streamed is the whole answer."""

    def __init__(self, engine: Engine, model: str, path: str, body: dict[str, Any]) -> None:
        self._engine, self._model, self._path = engine, model, path
        self._body = json.dumps({"model": model, **body}).encode()
        self._streams = bool(body.get("stream"))
        self.firsts_s: list[float] = []
        self.gaps_s: list[float] = []

    async def ask(self) -> None:
        """Ask once.

        Raises:
            AssertionError: it was not answered as it should be.
            ServingError: it was refused.
        """
        headers = (("content-type", "application/json"),)
        call = HttpCall("bystander", self._model, "POST", self._path, headers=headers)
        reply = Stamped()
        async with asyncio.timeout(PATIENCE_S):
            await self._engine.http(call, self._body, reply, Tally())
        assert reply.status == 200, reply.body
        if self._streams:
            assert reply.body.endswith(b"data: [DONE]\n\n"), reply.body
            assert b'"error"' not in reply.body, reply.body
        first, *gaps = [after - before for before, after in itertools.pairwise(reply.at)]
        self.firsts_s.append(first)
        self.gaps_s += gaps

    async def ask_until(self, over: asyncio.Event) -> None:
        """Ask, and on until `over`."""
        await self.ask()
        while not over.is_set():
            await self.ask()

    def waits(self) -> dict[str, dict[str, float]]:
        """Of each kind of wait how many there were, the median, the p95 and the worst."""
        return {"first": _of(self.firsts_s), "gap": _of(self.gaps_s)}

    def late(self) -> str:
        """What is beyond its bound; empty if nothing is."""
        assert self.firsts_s, "nobody stood by"
        judged = [("first", "median_s", MEDIAN_S), ("gap", "p95_s", MOST_S)]
        judged += [(kind, "worst_s", WORST_S) for kind in ("first", "gap")]
        waits = self.waits()
        return ", ".join(
            f"{kind} {name} {waits[kind][name]} of at most {most}"
            for kind, name, most in judged
            if waits[kind]["count"] and waits[kind][name] > most
        )


def _of(waits_s: list[float]) -> dict[str, float]:
    ordered = sorted(waits_s)
    if not ordered:
        return {"count": 0}
    return {
        "count": len(ordered),
        "median_s": round(statistics.median(ordered), 4),
        "p95_s": round(ordered[len(ordered) * 95 // 100], 4),
        "worst_s": round(ordered[-1], 4),
    }
