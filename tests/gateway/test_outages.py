"""Router processes whose database, or whose disk, is away under load (`make test-ledger`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from loadtests.inside.stacks import free_port
from tests.gateway.routers import Load, RouterProcess, admin_key, until
from tests.stores import PostgreSQL

AWAY_S = float(os.environ.get("STORE_AWAY_S", "60"))

pytestmark = pytest.mark.long


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
        with_s, load.times_s = statistics.median(load.times_s), []
        await asyncio.to_thread(server.stop)
        before = len(load.told)
        began = time.monotonic()
        await asyncio.sleep(AWAY_S)
        for router in routers:
            assert await router.metric("serving_store_up") == 0
            assert await router.metric("serving_ledger_unshipped_bytes") > 0
        meanwhile, without_s = len(load.told) - before, statistics.median(load.times_s)
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
            f"all; one took {without_s:.2f} s, {with_s:.2f} s with the store (medians)"
        )
        print(said)
        record_property("report", said)
        assert without_s < 3 * with_s + 0.1
    finally:
        await load.close()
        for router in routers:
            router.kill()
        server.close()


@pytest.mark.parametrize("full", ["serve", "refuse"])
async def test_postgresql_is_away_where_it_is_the_ledger(
    link: int, tmp_path: Path, full: str
) -> None:
    """What runs is answered all the same; what comes then is, too, or is refused; and the ledger is
    complete once it is back."""
    server = PostgreSQL()
    url, port = server.database(), free_port()
    key = await admin_key(url)
    environ = {
        "SERVING_STORE_URL": url,
        "SERVING_API_KEYS": "sk-one:acme",
        "SERVING_LEDGER": "store",
        "SERVING_LEDGER_FULL": full,
    }
    router = RouterProcess(tmp_path, link, port, environ)
    load = Load(f"http://127.0.0.1:{port}", "sk-one")
    try:
        await router.ready()
        load.start()
        await load.more(50)
        assert not load.refused
        running = asyncio.create_task(load.ask(stream=True, words=500))
        await until(lambda: router.metric("serving_requests_in_flight"))
        await asyncio.to_thread(server.stop)
        if full == "serve":
            await load.more(50)
        else:
            await until(lambda: asyncio.sleep(0, load.refused))
        assert await router.metric("serving_ledger_entries_unwritten") > 0
        assert (await running).status_code == 200
        statuses = {(await load.ask()).status_code for _ in range(5)}
        assert statuses == ({200} if full == "serve" else {503})
        await asyncio.to_thread(server.start)
        await until(lambda: takes_entries(router))
        await load.more(50)
        await load.stop()
        assert set(load.refused) <= ({(503, "ledger_unavailable")} if full == "refuse" else set())
        await load.complete(key)
        assert await router.metric("serving_ledger_entries_lost_total") == 0
        # It ends as any other.
        router.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(router.process.wait, 30) == 0
    finally:
        await load.close()
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


def fill(path: Path) -> None:
    """Take all the room that there is."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
