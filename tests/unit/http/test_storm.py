"""Servers that leave a shared port and come back lose no connection, whatever the kernel's setting.

Before sockets were handed over, some of a hundred were reset each time that a server left.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import storm

ROOT = Path(__file__).parents[3]
# Every server leaves several times.
LEAVES = 10
# A network of its own, where the kernel's setting may be changed.
OWN_NETWORK = ("unshare", "--net", *(() if os.geteuid() == 0 else ("--user", "--map-root-user")))
SET = 'ip link set lo up && echo {} > /proc/sys/net/ipv4/tcp_migrate_req && exec "$@"'


def whole(figures: dict[str, Any]) -> None:
    assert figures["rolled"] >= LEAVES > 3 * storm.SERVERS
    assert figures["sent"] >= storm.LEAST
    assert figures["ends"] == {"ok": figures["sent"]}


@pytest.mark.parametrize("grow", [False, True], ids=["replaced", "followed"])
async def test_no_connection_is_lost(grow: bool) -> None:
    whole(await storm.run(LEAVES, grow=grow))


@pytest.mark.parametrize("migrate", [0, 1])
def test_nor_with_the_kernel_s_own_way(migrate: int) -> None:
    command = [*OWN_NETWORK, "sh", "-c", SET.format(migrate), "sh", sys.executable]
    command += ["-m", "tests.storm", "--leaves", str(LEAVES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    if done.returncode and "unshare" in done.stderr:
        pytest.skip(f"no network namespaces here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["migrate"] == migrate
    whole(figures)


async def test_sockets_do_not_pile_up() -> None:
    servers = [await storm.made()]
    for _ in range(6):
        servers.append(await storm.made(servers[0].port))
        await asyncio.gather(servers.pop(0).close())
    acceptor = servers[0]._acceptor
    assert acceptor is not None
    assert len(acceptor.sockets) == 2, "never more than there were servers at once"
    await servers[0].close()
