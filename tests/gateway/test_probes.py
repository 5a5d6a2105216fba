"""What KubeRay runs in a pod of routers that has no readiness probe of its own: the command itself.

`BaseWgetHealthCommand` in KubeRay 1.7.0, ray-operator/controllers/ray/utils/constant.go. Its first
half asks Ray's agent, which is not here.
"""

from __future__ import annotations

import asyncio
import shutil
import socket

import pytest

from tests.gateway.conftest import Open, Site

pytestmark = pytest.mark.skipif(shutil.which("wget") is None, reason="there is no wget here")

COMMAND = "wget --tries 1 -T {seconds} -q -O- http://localhost:{port}/-/healthz | grep success"
# The one of releases before 1.6.
OLD_COMMAND = "wget -T {seconds} -q -O- http://localhost:{port}/-/healthz | grep success"


async def probe(site: Site, command: str) -> int:
    running = await asyncio.create_subprocess_exec(
        *("bash", "-c", command.format(seconds=10, port=await site.listen())),
        stdout=asyncio.subprocess.DEVNULL,
    )
    return await running.wait()


@pytest.mark.parametrize("command", [COMMAND, OLD_COMMAND])
async def test_a_router_passes_the_probe_of_kuberay(site: Site, command: str) -> None:
    assert await probe(site, command) == 0


async def test_it_passes_without_a_key_and_without_a_replica(open_site: Open) -> None:
    site = await open_site(replicas=0, public_pages="closed", host="0.0.0.0")
    assert await probe(site, COMMAND) == 0


async def test_a_routers_own_port_may_be_a_fixed_one(open_site: Open) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    site = await open_site(own_port=port)
    await site.listen()
    assert site.router.entry.port == port


async def test_another_page_does_not_pass(site: Site) -> None:
    assert await probe(site, COMMAND.replace("/-/healthz", "/version")) != 0
