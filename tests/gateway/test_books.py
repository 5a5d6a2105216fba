"""Whatever happens to requests, replicas and routers, in any order: each request is settled once,
and nothing is held in the end.

What is cut off here is killed in `tests/cluster/test_chaos.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from serving.accounts.ledger import segment
from serving.accounts.ledger.ledger import JournalLedger
from serving.store.engine import Store, StoreAway
from tests.gateway.books import DISK, END, FAIL, ROUTERS, Client, World

# None: long enough for a journal's thread.
TURNS = st.sampled_from([0, 1, 2, 5, 12, None])


class Books(RuleBasedStateMachine):
    """Requests come, go on and end, in routers and on replicas that come and go. A rule does
    nothing where there is nothing to do it to. After each, the event loop makes some turns."""

    template: Path | None = None

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        # Where there is one, a disk in memory, which is always as slow as `DISK`.
        memory = Path("/dev/shm")
        self.folder = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
        folder = Path(self.folder.name)
        if Books.template is not None:
            shutil.copy(Books.template, folder / "store.sqlite3")
        self.world = World(folder)
        self.wait_for(self.world.start())

    def wait_for(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def turn(self, turns: int | None) -> None:
        async def some() -> None:
            for _ in range(turns or 0):
                await asyncio.sleep(0)
            if turns is None:
                await asyncio.sleep(0.005)

        self.wait_for(some())

    @rule(which=st.integers(0, ROUTERS - 1), stream=st.booleans(), turns=TURNS)
    def request(self, which: int, stream: bool, turns: int | None) -> None:
        async def begin() -> None:
            world = self.world
            number = len(world.clients) + 1
            world.clients.append(Client(world.routers[which], number, stream=stream))

        self.wait_for(begin())
        self.turn(turns)

    @rule(pick=st.integers(0, 99), tokens=st.sampled_from([1, 40, 300]), turns=TURNS)
    def make(self, pick: int, tokens: int, turns: int | None) -> None:
        """An engine makes tokens."""
        self.tell(pick, tokens)
        self.turn(turns)

    @rule(
        pick=st.integers(0, 99),
        order=st.sampled_from([END, END, FAIL]),
        turns=TURNS,
        dies=st.sampled_from([False, False, True]),
    )
    def finish(self, pick: int, order: int, turns: int | None, dies: bool) -> None:
        """A call ends, well or not, and its router may die of a sudden."""
        request = self.tell(pick, order)
        self.turn(turns)
        routers = self.world.routers
        owner = next((c.router for c in self.world.clients if c.id == request), None)
        if dies and owner in routers:
            self.wait_for(self.world.kill_router(routers.index(owner)))

    @rule(pick=st.integers(0, 99), turns=TURNS)
    def leave(self, pick: int, turns: int | None) -> None:
        """A client leaves, before or after its first byte."""
        if waiting := [each for each in self.world.clients if not each.task.done()]:
            waiting[pick % len(waiting)].leave()
        self.turn(turns)

    @rule(what=st.sampled_from(["replica", "router", "ends"]), place=st.integers(0, 1), turns=TURNS)
    def lose(self, what: str, place: int, turns: int | None) -> None:
        """A replica dies, and what had no byte yet is sent to another; a router dies, or ends."""
        world = self.world
        work = {
            "replica": world.kill_replica,
            "router": world.kill_router,
            "ends": world.end_router,
        }
        self.wait_for(work[what](place))
        self.turn(turns)

    @rule(place=st.integers(0, 1), fault=st.sampled_from(["", "away", "deaf"]), ships=st.booleans())
    def store(self, place: int, fault: str, ships: bool) -> None:
        """A batch of entries is shipped, or leases are renewed; and once more where the answer was
        lost."""
        router = self.world.routers[place]
        ledger, lender = router.books.ledger, router.limits._lender
        assert isinstance(ledger, JournalLedger)
        assert ledger._shipper is not None
        assert lender is not None
        line: Any = ledger._shipper._sink if ships else lender._bank
        line.fault = fault
        with contextlib.suppress(StoreAway):
            self.wait_for(
                ledger._shipper.ship_all() if ships else lender.renew(router.limits._shelf)
            )
        line.fault = ""

    def tell(self, pick: int, order: int) -> str:
        """Tell an engine what becomes of a call; its request's ID."""
        if not (runs := self.world.runs):
            return ""
        run = runs[pick % len(runs)]
        run.orders.put_nowait(order)
        return run.request_id

    def teardown(self) -> None:
        try:
            self.wait_for(self.world.check())
        finally:
            self.loop.close()
            self.folder.cleanup()


@pytest.fixture(scope="module", autouse=True)
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty store, made once, and the disk."""
    path = tmp_path_factory.mktemp("store") / "store.sqlite3"

    async def make() -> None:
        store = Store(f"sqlite:///{path}")
        await store.prepare()
        await store.close()

    asyncio.run(make())
    Books.template = path
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(segment, "write", DISK.write)
        yield


def examples(number: int) -> settings:
    return settings(
        max_examples=number,
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


TestBooks = Books.TestCase
TestBooks.settings = examples(8)


@pytest.mark.long
class TestMoreBooks(Books.TestCase):  # type: ignore[misc,name-defined]
    """The same for minutes."""

    settings = examples(200)
