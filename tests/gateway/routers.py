"""Router processes on one port, and clients that note what each has been told of its usage."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from loadtests.inside.stacks import free_port
from serving.accounts.bootstrap import make_admin_key
from serving.store.engine import Store
from tests.gateway.conftest import REPEATS, events

CLIENTS = 8
# Of a router that may take its time on a busy machine.
START_S = 60.0
# An answer takes a twentieth of it.
STUCK_S = 1.0


class RouterProcess:
    """One router, on a port that others may share."""

    def __init__(
        self,
        folder: Path,
        link: int,
        port: int,
        environ: dict[str, str],
        before: tuple[str, ...] = (),
    ) -> None:
        models = folder / "models.json"
        models.write_text(json.dumps({"models": [REPEATS], "router": {"replicas": 2}}))
        self._own = free_port()
        environ = {
            "SERVING_CLUSTER_TOKEN": "token",
            "SERVING_LOG_DIR": str(folder / "logs"),
            "SERVING_LEDGER_DIR": str(folder / "journals"),
            "SERVING_OWN_PORT": str(self._own),
            **environ,
        }
        replica = ("--replica", "echo#1", "echo", f"127.0.0.1:{link}")
        router = (sys.executable, "-m", "serving.router", "--models", str(models), *replica)
        self.process = subprocess.Popen(
            [*before, *router, "--port", str(port)], env=os.environ | environ
        )

    async def metric(self, name: str) -> float:
        """One of its metrics, summed over all labels."""
        async with httpx.AsyncClient(trust_env=False) as client:
            text = (await client.get(f"http://127.0.0.1:{self._own}/metrics")).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        )

    async def ready(self) -> None:
        async with asyncio.timeout(START_S), httpx.AsyncClient(trust_env=False) as client:
            while True:
                assert self.process.poll() is None, "it has ended"
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"http://127.0.0.1:{self._own}/ready")).is_success:
                        return
                await asyncio.sleep(0.1)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Load:
    """Clients that send one request after the other, and note what each has been told."""

    numbers = itertools.count(1)

    def __init__(self, url: str, key: str) -> None:
        self._client = httpx.AsyncClient(
            base_url=url, headers={"x-api-key": key}, trust_env=False, timeout=30
        )
        self.told: dict[str, tuple[int, int]] = {}
        # Whose connection broke before the answer was whole.
        self.lost: set[str] = set()
        self.refused: Counter[tuple[int, str]] = Counter()
        self.times_s: list[float] = []
        # Since when requests have been under way.
        self._under_way: dict[str, float] = {}
        self.may_break = False
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def ask(self, *, stream: bool = False, words: int = 20) -> httpx.Response:
        name = f"r{next(self.numbers)}"
        body = {"model": "echo", "prompt": "word " * words, "stream": stream, "account_id": "acme"}
        self._under_way[name] = began = time.monotonic()
        try:
            answer = await self._client.post(
                "/v4/completions", json=body, headers={"x-request-id": name}
            )
        except httpx.TransportError:
            self.lost.add(name)
            raise
        finally:
            del self._under_way[name]
        self.times_s.append(time.monotonic() - began)
        if answer.status_code == 200:
            last = events(answer.text)[-1][1] if stream else answer.json()
            self.told[name] = last["token_usage"]["prompt"], last["token_usage"]["completion"]
        else:
            self.refused[answer.status_code, answer.json()["error"]["code"]] += 1
        return answer

    def start(self) -> None:
        self._stop.clear()
        self._tasks = [asyncio.create_task(self._run(bool(n % 2))) for n in range(CLIENTS)]

    async def stop(self) -> None:
        """Raises what a client has met."""
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def more(self, answers: int) -> None:
        """Wait until the clients have got so many more."""
        goal = len(self.told) + answers
        async with asyncio.timeout(START_S):
            while len(self.told) < goal:
                assert not any(task.done() for task in self._tasks), "a client has given up"
                await asyncio.sleep(0.01)

    async def stuck(self) -> bool:
        """True if a request has taken so long that its router does nothing."""
        return any(time.monotonic() - began > STUCK_S for began in self._under_way.values())

    async def _run(self, stream: bool) -> None:
        while not self._stop.is_set():
            try:
                await self.ask(stream=stream)
            except httpx.TransportError:
                # As with a router that is killed, and then alone.
                if not self.may_break:
                    raise
            await asyncio.sleep(0.01)

    async def entries(self, key: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        query: dict[str, str] = {}
        while True:
            headers = {"x-api-key": key}
            page = await self._client.get("/v4/usage/entries", params=query, headers=headers)
            assert page.status_code == 200, page.text
            found += page.json()["items"]
            if not page.json()["next"]:
                return found
            query = {"after": page.json()["next"]}

    async def complete(self, key: str, within_s: float = 60.0) -> None:
        """The ledger has each answer once, with the numbers that its client was told, and besides
        these only what a client may have had."""
        deadline = time.monotonic() + within_s
        while True:
            rows = await self.entries(key)
            by_id = {row["request_id"]: row for row in rows}
            if self.told.keys() <= by_id.keys() or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.5)
        assert len(rows) == len(by_id), "a request is there twice"
        kept = {n: (r["prompt_tokens"], r["completion_tokens"]) for n, r in by_id.items()}
        assert {name: kept.get(name) for name in self.told} == self.told
        others = {n: r["outcome"] for n, r in by_id.items() if n not in {*self.told, *self.lost}}
        assert set(others.values()) <= {"cancelled"}, others

    async def close(self) -> None:
        await self._client.aclose()


async def admin_key(url: str) -> str:
    store = Store(url)
    _, key = await make_admin_key(store, "test")
    await store.close()
    return key


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.02)
