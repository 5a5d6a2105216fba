"""Router processes whose database, or whose disk, is away under load (`make test-ledger`)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from loadtests.inside.stacks import free_port
from serving.accounts.bootstrap import make_admin_key
from serving.catalogue.catalogue import Catalogue
from serving.engine.echo import EchoEngine
from serving.engine.link_server import LinkServer
from serving.observability.logs import Log
from serving.store.engine import Store
from tests.gateway.conftest import events
from tests.stores import PostgreSQL

AWAY_S = float(os.environ.get("STORE_AWAY_S", "60"))
CLIENTS = 8
SPEC = {"id": "echo", "weights": "none", "context": 2000, "engine_args": {"interval_s": 0.002}}
# Of a router that may take its time on a busy machine.
START_S = 60.0

pytestmark = pytest.mark.long


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
        models.write_text(json.dumps({"models": [SPEC], "router": {"replicas": 2}}))
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
        self.refused: Counter[tuple[int, str]] = Counter()
        self.slowest_s = 0.0
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def ask(self, *, stream: bool = False, words: int = 20) -> httpx.Response:
        name = f"r{next(self.numbers)}"
        body = {"model": "echo", "prompt": "word " * words, "stream": stream, "account_id": "acme"}
        began = time.monotonic()
        answer = await self._client.post(
            "/v4/completions", json=body, headers={"x-request-id": name}
        )
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
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

    async def _run(self, stream: bool) -> None:
        while not self._stop.is_set():
            await self.ask(stream=stream)
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
        """The ledger has each answer once, with the numbers that its client was told."""
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
        assert {row["outcome"] for row in rows if row["request_id"] not in self.told} <= {
            "cancelled"
        }

    async def close(self) -> None:
        await self._client.aclose()


@pytest.fixture
async def link(log: Log) -> AsyncIterator[int]:
    """The port of an engine server with an engine that repeats."""
    spec = Catalogue.model_validate({"models": [{"kind": "engine", **SPEC}]}).engines[0]
    server = LinkServer(
        EchoEngine(spec), replica="echo#1", model="echo", token="token", log=log,
        on_call_end=lambda _: None,
    )  # fmt: skip
    yield await server.start("127.0.0.1")
    await server.close()


async def admin_key(url: str) -> str:
    store = Store(url)
    _, key = await make_admin_key(store, "test")
    await store.close()
    return key


async def test_postgresql_is_away_for_a_minute(
    link: int, tmp_path: Path, record_property: Any
) -> None:
    """No request fails for it, none waits for it, and the ledger is complete when it is back, what
    a router has kept that was killed meanwhile included."""
    server = PostgreSQL()
    url, port = server.database(), free_port()
    key = await admin_key(url)
    (tmp_path / "keys").write_text("sk-one:acme\naccount acme tokens_per_month=1000000000\n")
    environ = {"SERVING_STORE_URL": url, "SERVING_API_KEYS_FILE": str(tmp_path / "keys")}
    routers = [RouterProcess(tmp_path, link, port, environ) for _ in range(2)]
    load = Load(f"http://127.0.0.1:{port}", "sk-one")
    try:
        await asyncio.gather(*(router.ready() for router in routers))
        load.start()
        await asyncio.sleep(3)
        await asyncio.to_thread(server.stop)
        before = len(load.told)
        began = time.monotonic()
        await asyncio.sleep(AWAY_S)
        for router in routers:
            assert await router.metric("serving_store_up") == 0
            assert await router.metric("serving_ledger_unshipped_bytes") > 0
        meanwhile = len(load.told) - before
        away_s = time.monotonic() - began
        await load.stop()
        routers[0].kill()
        await asyncio.to_thread(server.start)
        load.start()
        await asyncio.sleep(2)
        await load.stop()
        assert not load.refused
        assert meanwhile > AWAY_S
        await load.complete(key)
        said = (
            f"{meanwhile} requests in {away_s:.0f} s without the store, of {len(load.told)} in "
            f"all; the slowest took {load.slowest_s:.2f} s"
        )
        print(said)
        record_property("report", said)
        assert load.slowest_s < 5
    finally:
        await load.close()
        for router in routers:
            router.kill()
        server.close()


@pytest.mark.parametrize("full", ["serve", "refuse"])
async def test_the_disk_of_the_journals_is_full(link: int, tmp_path: Path, full: str) -> None:
    """A file system of its own, which a file fills. What runs is answered; what comes then is, or
    is refused; and the ledger is complete once there is room."""
    url, port = f"sqlite:///{tmp_path}/store.sqlite3", free_port()
    key = await admin_key(url)
    journals = tmp_path / "journals"
    journals.mkdir()
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    mount = 'mount -t tmpfs -o size=256k none "$1" && shift && exec "$@"'
    before = ("unshare", "--mount", *user, "sh", "-c", mount, "sh", str(journals))
    if subprocess.run([*before, "true"], capture_output=True, check=False).returncode:
        pytest.skip("file systems of our own are not allowed here")
    environ = {
        "SERVING_STORE_URL": url,
        "SERVING_API_KEYS": "sk-one:acme",
        "SERVING_LEDGER_FULL": full,
    }
    router = RouterProcess(tmp_path, link, port, environ, before)
    load = Load(f"http://127.0.0.1:{port}", "sk-one")
    # As the router sees it.
    ballast = Path(f"/proc/{router.process.pid}/root{journals}/ballast")
    try:
        await router.ready()
        assert (await load.ask()).status_code == 200
        running = asyncio.create_task(load.ask(stream=True, words=500))
        await until(lambda: router.metric("serving_requests_in_flight"))
        fill(ballast)
        # The last page may have room for some entries.
        for _ in range(200):
            await load.ask()
            if await router.metric("serving_ledger_entries_unwritten"):
                break
        statuses = {(await load.ask()).status_code for _ in range(5)}
        assert statuses == ({200} if full == "serve" else {503})
        assert await router.metric("serving_ledger_entries_unwritten") > 0
        assert (await running).status_code == 200
        assert set(load.refused) <= {(503, "ledger_unavailable")}
        ballast.unlink()
        await until(lambda: takes_entries(router))
        assert (await load.ask()).status_code == 200
        await load.complete(key)
        # It ends as any other.
        router.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(router.process.wait, 30) == 0
    finally:
        await load.close()
        router.kill()


async def takes_entries(router: RouterProcess) -> bool:
    return await router.metric("serving_ledger_entries_unwritten") == 0


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.02)


def fill(path: Path) -> None:
    """Take all the room that there is."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
