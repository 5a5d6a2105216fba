"""Requests that are sent one by one and waited for, by the load generator's own client."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from loadtests.clock import Clock
from loadtests.load.planned import Endpoint, Planned
from loadtests.measure.record import Record
from loadtests.run.session import record_of
from loadtests.wire.client import Client
from loadtests.wire.service import Service

KEY = "sk-local"


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of a request, and the text that came, whole or not."""

    record: Record
    text: str


class Asker:
    """Asks one service. Made within a running event loop; close it at the end."""

    def __init__(self, url: str, key: str = KEY, timeout_s: float = 600.0) -> None:
        self._clock = Clock(time.monotonic())
        self._client = Client(Service(url), self._clock, timeout_s)
        self._key = key

    async def __call__(
        self,
        endpoint: Endpoint,
        model: str,
        prompt: str,
        max_tokens: int,
        *,
        stream: bool = True,
        key: str | None = None,
        **more: Any,
    ) -> Answered:
        """Send a greedy request, with another key than usual if one is given, and wait for its end,
        whatever it is. `more` has further fields of `Planned`."""
        planned = Planned(
            index=0,
            due_s=None,
            phase="",
            traffic="",
            endpoint=endpoint,
            stream=stream,
            model=model,
            prompt=prompt,
            max_tokens=max_tokens,
            key=key or self._key,
            **more,
        )
        content = self._client.prepare(planned)
        record = record_of(planned, self._clock.now(), {"": True})
        ended: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()

        def done(record: Record, text: str) -> None:
            if not ended.done():  # who waits may have been cancelled
                ended.set_result(Answered(record, text))

        self._client.send(planned, record, content, done, keep_text=True)
        return await ended

    def close(self) -> None:
        """Leave what is under way, and close the connections."""
        self._client.close()
