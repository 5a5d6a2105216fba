"""A router that is taken down: who is told, and what goes on meanwhile."""

from __future__ import annotations

import asyncio

import httpx

from tests.conftest import Eventually
from tests.gateway.conftest import KEY, Open

COMPLETION = {"model": "echo", "prompt": "one two three"}


async def test_the_last_router_of_a_machine_is_not_ready_before_it_stops_accepting(
    open_site: Open, eventually: Eventually
) -> None:
    site = await open_site(drain_s=5.0, leave_s=0.5)
    url = f"http://127.0.0.1:{await site.listen()}"
    own = f"http://{site.router.entry.ops}"
    async with httpx.AsyncClient(headers=KEY, trust_env=False) as client:
        for path in ("/ready", "/-/healthz"):
            assert (await client.get(url + path)).status_code == 200
        closing = asyncio.create_task(site.router.close())
        await eventually(lambda: site.router.pipeline._view.leaving)
        for base in (url, own):
            for path in ("/ready", "/-/healthz"):
                response = await client.get(base + path)
                assert response.status_code == 503, path
            assert (await client.get(base + "/health")).status_code == 200, "it lives"
        for _ in range(3):  # on connections old and new
            response = await client.post(url + "/v4/completions", json=COMPLETION)
            assert response.status_code == 200
            assert response.headers["connection"] == "close"
        assert not closing.done()
        await closing


async def test_one_of_several_leaves_at_once_and_its_streams_go_on(
    open_site: Open, eventually: Eventually
) -> None:
    one = await open_site(drain_s=30.0, leave_s=30.0, engine={"interval_s": 0.05})
    port = await one.listen()
    two = await open_site(port=port)
    await two.listen()
    url = f"http://127.0.0.1:{port}/v4/completions"
    # A connection for each request: the kernel chooses a router for a connection.
    alone = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(headers=KEY, trust_env=False, limits=alone) as client:
        running = 0
        streams = []
        # Until one of them is at the router that leaves.
        while not running:
            body = COMPLETION | {"stream": True}
            streams.append(asyncio.create_task(client.post(url, json=body)))
            await asyncio.sleep(0.02)
            running = one.running
        async with asyncio.timeout(5):
            closing = asyncio.create_task(one.router.close())
            await asyncio.sleep(0)
            for response in await asyncio.gather(*streams):
                assert response.status_code == 200
                assert '"finish_reason":"stop"' in response.text
            for path in ("/ready", "/-/healthz"):
                assert (await client.get(f"http://127.0.0.1:{port}{path}")).status_code == 200
            await client.aclose()
            await closing
    assert not one.router.pipeline._view.leaving
