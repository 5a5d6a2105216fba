"""Streams, and short requests on new connections, through a load balancer like Kubernetes' own.

It asks every router's `/-/healthz` and sends new connections to those that said yes last; it
repeats nothing. What fails is kept with its reason.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.nodes.cluster import KEY, PORT

PROBE_S = 0.5
# A pod is not ready after so many probes in a row that failed.
FAILURES = 2
ANSWER_S = 110.0
CUT = "cut"


@dataclass
class Figures:
    """What became of requests. Of the failed ones, `reset` are those whose connection broke, and
    `broken` those whose answer began and did not come to its end."""

    sent: int = 0
    failed: int = 0
    reset: int = 0
    broken: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        said = f"{self.sent} sent, {self.failed} failed, {self.reset} reset, "
        said += f"{self.broken} broken"
        return f"{said}: {dict(self.reasons.most_common(4))}" if self.failed else said


class Load:
    """Load in a thread of its own, from `start` to `stop`.

    Args:
        hosts: addresses of the machines with routers.
        streams: how many streams run at any time; each is followed by another.
        tokens: how many tokens a stream has.
        clients: how many send short requests, each on a new connection.
        port: of the routers.
        key: that they take.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        model: str,
        *,
        streams: int = 0,
        tokens: int = 150,
        clients: int = 0,
        port: int = PORT,
        key: str = KEY,
    ) -> None:
        self.streams, self.short = Figures(), Figures()
        self._hosts = hosts
        self._model = model
        self._sizes = (streams, tokens, clients)
        self._port, self._key = port, key
        self._ready: list[str] = list(hosts)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def start(self) -> Load:
        self._thread.start()
        return self

    def stop(self) -> Load:
        """Send nothing new, wait for what runs."""
        self._stop.set()
        self._thread.join()
        return self

    def __str__(self) -> str:
        return f"streams: {self.streams}; short: {self.short}"

    async def _run(self) -> None:
        streams, tokens, clients = self._sizes
        probes = [asyncio.create_task(self._probe(host)) for host in self._hosts]
        work = [self._repeat(self.streams, tokens, stream=True) for _ in range(streams)]
        work += [self._repeat(self.short, 2, stream=False) for _ in range(clients)]
        await asyncio.gather(*work)
        for probe in probes:
            probe.cancel()

    async def _repeat(self, figures: Figures, tokens: int, *, stream: bool) -> None:
        await asyncio.sleep(random.uniform(0, 2))
        while not self._stop.is_set():
            if not self._ready:
                figures.failed += 1
                figures.reasons["no router is ready"] += 1
                await asyncio.sleep(0.2)
                continue
            figures.sent += 1
            host = random.choice(self._ready)
            try:
                async with asyncio.timeout(ANSWER_S):
                    reason = await self._complete(host, tokens, stream=stream)
            except OSError as error:
                figures.reset += isinstance(error, ConnectionResetError)
                reason = f"{type(error).__name__} of {host}"
            if reason:
                figures.failed += 1
                figures.broken += reason.startswith(CUT)
                figures.reasons[reason] += 1
            if not stream:
                await asyncio.sleep(0.05)

    async def _complete(self, host: str, tokens: int, *, stream: bool) -> str:
        """Why the completion failed; empty if it did not."""
        parameters = {"temperature": 0.8, "max_tokens": tokens}
        body = {"model": self._model, "prompt": f"Once {random.random()}", "stream": stream}
        status, answer = await self._ask(
            host, "POST /v4/completions", body | {"model_parameters": parameters}
        )
        if status != 200:
            return f"{status} {answer[-300:].decode(errors='replace')}"
        if b"event: error" in answer or b'"token_usage":{' not in answer:
            return f"{CUT}: ...{answer[-300:].decode(errors='replace')}"
        return ""

    async def _probe(self, host: str) -> None:
        failures = 0
        while True:
            try:
                async with asyncio.timeout(2):
                    status, _ = await self._ask(host, "GET /-/healthz")
            except OSError:
                status = 0
            failures = 0 if status == 200 else failures + 1
            if not failures and host not in self._ready:
                self._ready.append(host)
            elif failures >= FAILURES and host in self._ready:
                self._ready.remove(host)
            await asyncio.sleep(PROBE_S)

    async def _ask(
        self, host: str, line: str, body: dict[str, Any] | None = None
    ) -> tuple[int, bytes]:
        """One request on a connection of its own: the status, and all that follows the head.

        Raises:
            OSError: the connection broke, or the answer did not end in time.
        """
        data = json.dumps(body).encode() if body is not None else b""
        reader, writer = await asyncio.open_connection(host, self._port)
        try:
            head = f"{line} HTTP/1.1\r\nhost: {host}\r\nx-api-key: {self._key}\r\n"
            head += f"content-length: {len(data)}\r\nconnection: close\r\n\r\n"
            writer.write(head.encode() + data)
            answer = await reader.read(-1)
        finally:
            writer.close()
        if not answer:
            raise ConnectionResetError("closed without an answer")
        head_bytes, _, rest = answer.partition(b"\r\n\r\n")
        return int(head_bytes.split(b" ", 2)[1]), rest
