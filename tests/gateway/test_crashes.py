"""Routers, and the database, are killed under load (`make test-ledger`)."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from loadtests.inside.stacks import free_port
from tests.gateway.routers import Load, RouterProcess, admin_key, until
from tests.stores import PostgreSQL

pytestmark = pytest.mark.long


@pytest.mark.parametrize("kind", ["journal", "store"])
async def test_routers_and_postgresql_are_killed_under_load(
    link: int, tmp_path: Path, kind: str, record_property: Any
) -> None:
    """Only connections to a router that was killed break. Afterwards each completion that a client
    has got whole is in the ledger once, with the numbers that it was told. With journals a router
    may die while the store is away, too."""
    server = PostgreSQL()
    url, port = server.database(), free_port()
    key = await admin_key(url)
    environ = {
        "SERVING_STORE_URL": url,
        "SERVING_API_KEYS": "sk-one:acme",
        "SERVING_LEDGER": kind,
    }
    routers = [RouterProcess(tmp_path, link, port, environ) for _ in range(3)]
    living = list(routers)
    load = Load(f"http://127.0.0.1:{port}", "sk-one")
    unstored = "serving_ledger_" + ("unshipped_bytes" if kind == "journal" else "entries_unwritten")

    async def busy() -> list[RouterProcess]:
        return [each for each in living if await each.metric("serving_requests_in_flight")]

    async def kill_one() -> None:
        """Kill a router in the midst of its work: it stands still until a client waits for it."""
        await until(busy)
        router = (await busy() or living)[0]
        router.process.send_signal(signal.SIGSTOP)
        await until(load.stuck)
        load.may_break = True
        living.remove(router)
        router.kill()
        await load.more(100)
        load.may_break = False

    try:
        await asyncio.gather(*(router.ready() for router in routers))
        load.start()
        await load.more(200)
        await kill_one()
        await asyncio.to_thread(server.crash)
        await load.more(100)
        assert sum([await each.metric(unstored) for each in living]) > 0
        if kind == "journal":
            await kill_one()
        await asyncio.to_thread(server.start)
        await load.more(100)
        await load.stop()
        assert load.lost, "nothing was under way when a router was killed"
        assert not load.refused
        await load.complete(key)
        said = f"{len(load.told)} answers, {len(load.lost)} connections broken"
        print(said)
        record_property("report", said)
    finally:
        await load.close()
        for router in routers:
            router.kill()
        server.close()
