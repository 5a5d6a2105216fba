"""Two routers with a ledger and limits, and two replicas, whose parts stop and fail as a test says.

All are real but in one process, and answer at a client's and an engine's word only. `World.check`
compares what clients, engines, ledger and limits have when everything has ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from serving.accounts.ledger import segment
from serving.accounts.ledger.journal import JournalFull
from serving.accounts.ledger.ledger import JournalLedger
from serving.accounts.quota.meter import Unit
from serving.catalogue.catalogue import Catalogue
from serving.engine.echo import EchoEngine
from serving.engine.interface import Chunk, Emit, Tally
from serving.engine.link_server import LinkServer
from serving.errors import EngineFailed
from serving.observability.logs import open_log
from serving.observability.tasks import end
from serving.router.router import Router
from serving.settings import Settings
from serving.store.engine import Store, StoreAway
from serving.store.entry import Numbered
from serving.store.quota_leases import BudgetAsk, BudgetLease, RateAsk, RateLease
from serving.store.schema import quota_budgets
from serving.store.usage import Span, Usage
from serving.wire.entry import Entry
from serving.wire.messages import CompletionCall
from tests.gateway.conftest import events

WORDS, LIMIT, FLIGHT, ROUTERS, REPLICAS = 3, 4_000, 16, 2, 2
KEYS = (
    "sk-one:acme\n"
    f"account acme tokens_per_month={LIMIT} requests_in_flight={FLIGHT} requests_per_minute=6000"
)
CATALOGUE = Catalogue.model_validate(
    {
        "models": [{"kind": "engine", "id": "echo", "weights": "w", "context": 5000}],
        "router": {"replicas": ROUTERS},
    }
)
END, FAIL = -1, -2
# An engine that is told to stop says what it has made at the end of its step.
STEP_S = 0.01
WRITE_S = 0.002


class Disk:
    """Takes its time, and nothing of a process that has died meanwhile."""

    def __init__(self) -> None:
        self.dead: set[int] = set()
        self._write = segment.write

    def write(self, descriptor: int, records: Iterable[bytes]) -> None:
        time.sleep(WRITE_S)
        if descriptor not in self.dead:
            self._write(descriptor, records)


DISK = Disk()


class Run:
    """One call on an engine, which does as it is told."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.orders: asyncio.Queue[int] = asyncio.Queue()


class Told(EchoEngine):
    """An engine that makes tokens, ends and fails when it is told to."""

    runs: list[Run]
    # The most that any engine has made for a request.
    made: Counter[str]

    async def generate(self, call: CompletionCall, emit: Emit, tally: Tally) -> None:
        run = Run(call.request_id)
        self.runs.append(run)
        tally.prompt_tokens = WORDS
        try:
            while (order := await run.orders.get()) > 0:
                for _ in range(order):
                    tally.completion_tokens += 1
                    emit(Chunk("x "))
                made = max(self.made[run.request_id], tally.completion_tokens)
                self.made[run.request_id] = made
            if order == FAIL:
                raise EngineFailed("as the test wants it")
            emit(Chunk("", "stop"))
        except asyncio.CancelledError:
            await asyncio.sleep(STEP_S)
            raise
        finally:
            self.runs.remove(run)


class Client:
    """One request as the listener passes it on, from a client that may leave."""

    def __init__(self, router: Router, number: int, *, stream: bool) -> None:
        self.id = f"r{number}"
        self.router = router
        self.status = 0
        self.sent = b""
        self.whole = self.gone = False
        self._stream = stream
        self._asked = False
        self._left = asyncio.Event()
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v4/completions",
            "query_string": b"",
            "client": ("127.0.0.1", 1),
            "headers": [(b"x-api-key", b"sk-one"), (b"x-request-id", self.id.encode())],
        }
        self.task = asyncio.get_running_loop().create_task(
            router.pipeline(scope, self._receive, self._send)
        )

    def leave(self) -> None:
        self.gone = True
        self._left.set()

    @property
    def told(self) -> tuple[int, int] | None:
        """The tokens that a client has been told which has got its answer whole."""
        if not self.whole or self.status != 200:
            return None
        if self._stream:
            found = [data for name, data in events(self.sent.decode()) if name != ":"]
            usage = found[-1].get("token_usage")  # none in an error's event
        else:
            usage = json.loads(self.sent)["token_usage"]
        return usage and (usage["prompt"], usage["completion"])

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            body = {"model": "echo", "prompt": "one two three", "stream": self._stream}
            return {"type": "http.request", "body": json.dumps(body).encode()}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if self.gone:
            raise OSError("the client is gone")
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        self.sent += message.get("body", b"")
        self.whole = not message.get("more_body", False)


class Line:
    """A router's line to the store, which fails once when it is told to: before the store has heard
    (`away`), or before it has answered (`deaf`)."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.fault = ""

    async def _pass(self, work: Any) -> Any:
        fault, self.fault = self.fault, ""
        if fault == "away":
            work.close()
            raise StoreAway("as the test wants it")
        answer = await work
        if fault == "deaf":
            raise StoreAway("the answer is lost")
        return answer

    async def shipped(self, journal: str) -> int:
        return int(await self._real.shipped(journal))

    async def ship(self, journal: str, after: int, entries: Sequence[Numbered]) -> None:
        await self._pass(self._real.ship(journal, after, entries))

    async def forget(self, journal: str) -> None:
        await self._real.forget(journal)

    async def renew(
        self, rates: Sequence[RateAsk], budgets: Sequence[BudgetAsk], now: int | None = None
    ) -> tuple[list[RateLease], list[BudgetLease]]:
        answer: tuple[list[RateLease], list[BudgetLease]] = await self._pass(
            self._real.renew(rates, budgets, now)
        )
        return answer


class World:
    """The routers, the replicas and their store, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder}/store.sqlite3"
        (folder / "keys").write_text(KEYS)
        self.log = open_log("books-test", str(folder / "logs"))
        self.numbers = Counter[str]()
        self.made = Counter[str]()
        # Requests whose engine died.
        self.silenced: set[str] = set()
        self.entries: dict[int, Entry] = {}
        self.servers: dict[int, LinkServer] = {}
        self.routers: list[Router] = []
        self.ended: list[Router] = []
        self.killed: list[Router] = []
        self.clients: list[Client] = []

    async def start(self) -> None:
        for place in range(REPLICAS):
            await self.add_replica(place)
        for _ in range(ROUTERS):
            self.routers.append(await self.router())

    async def add_replica(self, place: int) -> None:
        self.numbers["replica"] += 1
        name = f"echo#{self.numbers['replica']}"
        engine = Told(CATALOGUE.engines[0])
        engine.runs, engine.made = [], self.made
        server = LinkServer(
            engine, replica=name, model="echo", token="t", log=self.log, on_call_end=lambda _: None
        )
        port = await server.start("127.0.0.1")
        self.servers[place] = server
        self.entries[place] = Entry(name, "engine", "echo", "127.0.0.1", port, "127.0.0.1:1")
        for router in self.routers:
            router.fleet.update(self.entries.values())

    async def kill_replica(self, place: int) -> None:
        server = self.servers[place]
        for run in self.runs_of(server):
            self.silenced.add(run.request_id)
            run.orders.put_nowait(FAIL)
        await server.close()
        await self.add_replica(place)

    async def router(self) -> Router:
        self.numbers["router"] += 1
        fields = {
            "host": "127.0.0.1",
            "port": 0,
            "api_keys_file": str(self.folder / "keys"),
            "cluster_token": "t",
            "store_url": self.url,
            "hold_s": 5,
        }
        router = Router(
            Settings.model_validate(fields),
            router=f"r{self.numbers['router']}",
            own_host="127.0.0.1",
            drain_s=0.0,
            log=self.log,
            rng=random.Random(self.numbers["router"]),
        )
        await router.set_catalogue(CATALOGUE)
        router.fleet.update(self.entries.values())
        await router.prepare()
        ledger, lender = router.books.ledger, router.limits._lender
        assert isinstance(ledger, JournalLedger)
        assert ledger._shipper is not None
        assert lender is not None
        # Rules do what these do, in turns of their own.
        assert ledger._task is not None
        assert router.limits._task is not None
        await end(ledger._task, router.limits._task)
        ledger._shipper._sink = Line(ledger._shipper._sink)
        lender._bank = Line(lender._bank)
        return router

    async def end_router(self, place: int) -> None:
        """As the server ends one: what runs is cut off."""
        router = self.routers[place]
        await self._cut_off(router)
        await router.close()
        self.ended.append(router)
        self.routers[place] = await self.router()

    async def kill_router(self, place: int) -> None:
        """What is on its disk stays; nothing else of it is written, sent or given back."""
        router = self.routers[place]
        for client in self.clients:
            client.gone = client.gone or client.router is router
        ledger, limits = router.books.ledger, router.limits
        assert isinstance(ledger, JournalLedger)
        journal, shipper = ledger._journal, ledger._shipper
        assert journal is not None
        assert shipper is not None

        async def gone(entry: object) -> None:
            raise JournalFull("its process is dead")

        async def nothing(*_: object, **__: object) -> None:
            pass

        journal.append = gone  # type: ignore[method-assign,assignment]
        DISK.dead.add(journal._descriptor)
        journal._queue.put(None)
        journal._thread.join()
        DISK.dead.clear()
        os.close(journal._descriptor)
        os.close(journal._lock)
        shipper.close()
        ledger.close = nothing  # type: ignore[method-assign]
        assert limits._lender is not None
        limits._lender.renew = nothing  # type: ignore[method-assign]
        await self._cut_off(router)
        await router.close()
        self.killed.append(router)
        self.routers[place] = await self.router()

    async def _cut_off(self, router: Router) -> None:
        tasks = [client.task for client in self.clients if client.router is router]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    @staticmethod
    def runs_of(server: LinkServer) -> list[Run]:
        assert isinstance(server.engine, Told)
        return server.engine.runs

    @property
    def runs(self) -> list[Run]:
        return [run for server in self.servers.values() for run in self.runs_of(server)]

    # what is left

    async def check(self) -> None:
        """Let everything end, and look at what was kept of it."""
        async with asyncio.timeout(20):
            while not all(client.task.done() for client in self.clients):
                for run in self.runs:
                    run.orders.put_nowait(END)
                await asyncio.sleep(0.002)
        for router in self.routers:
            await router.close()
        last = await self.router()  # takes over what dead ones have left
        await last.close()
        for server in self.servers.values():
            await server.close()
        store = Store(self.url)
        now = datetime.now(UTC)
        day = timedelta(days=1)
        rows = await Usage(store).entries(Span(now - day, now + day), limit=10_000)
        async with store.reading() as connection:
            budgets = list(await connection.execute(quota_budgets.select()))
        await store.close()
        by_id = {row["request_id"]: row for row in rows}
        assert len(rows) == len(by_id), "a request is in the ledger twice"
        for router in (*self.ended, *self.routers):
            self._check_limits(router, by_id)
        self._check_ledger(by_id)
        ended = {name_of(router) for router in (*self.ended, *self.routers)}
        for row in budgets:
            if row.router in ended:
                assert row.used == row.granted, "a lease that was not given back"

    def _check_limits(self, router: Router, by_id: dict[str, dict[str, Any]]) -> None:
        """What a router has charged is what its requests have used; of one whose engine died, as
        much as that had said."""
        assert running(router) == 0
        least = unsure = 0
        for client in self.clients:
            if client.router is router and (row := by_id.get(client.id)) is not None:
                least += row["prompt_tokens"] + row["completion_tokens"]
                unsure += 0 if row["usage_known"] else WORDS + self.made[client.id]
        charged = sum(meter._used for meter in meters(router, Unit.TOKENS))
        assert least <= charged <= least + unsure

    def _check_ledger(self, by_id: dict[str, dict[str, Any]]) -> None:
        for client in self.clients:
            row = by_id.pop(client.id, None)
            if client.status == 429 and client.whole and row is None:
                continue  # never admitted
            if (told := client.told) is not None:
                assert row is not None
                assert (row["prompt_tokens"], row["completion_tokens"]) == told
            if client.router not in self.killed:
                assert row is not None, "it was admitted"
            if row is not None:
                assert row["usage_known"] or client.id in self.silenced
                seen = client.sent.count(b'"text":"x') if client.id not in self.silenced else 0
                assert seen <= row["completion_tokens"] <= self.made[client.id]
        assert not by_id, "a request that nobody has sent"


def meters(router: Router, unit: Unit) -> list[Any]:
    subjects = router.limits.limiter._shelf._subjects.values()
    return [meter for subject in subjects for each, meter in subject.meters if each is unit]


def running(router: Router) -> int:
    return sum(meter.running for meter in meters(router, Unit.IN_FLIGHT))


def name_of(router: Router) -> Any:
    """What the store calls it."""
    lender: Any = router.limits._lender
    return lender._bank._real._router
