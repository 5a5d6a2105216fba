"""A model with `min_replicas: 0`: the first request waits for a replica, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from serving.catalogue.catalogue import Catalogue
from tests.conftest import Eventually
from tests.gateway.conftest import Open, Site, events

Sleep = Callable[..., Awaitable[Site]]


@pytest.fixture
def sleeping(open_site: Open) -> Sleep:
    """Makes a site whose only model sleeps: `await sleeping(hold_s=0.2)`."""

    async def make(**settings: Any) -> Site:
        site = await open_site(replicas=0, **settings)
        models = [
            model.model_dump() | ({"min_replicas": 0, "idle_s": 0.1} if model.id == "echo" else {})
            for model in site.catalogue.models
        ]
        aliases = site.catalogue.aliases
        await site.router.set_catalogue(
            Catalogue.model_validate({"models": models, "aliases": aliases})
        )
        return site

    return make


@pytest.mark.parametrize("model", ["echo", "echo.pirate", "latest"])
async def test_the_first_request_wakes_it_and_is_answered(
    sleeping: Sleep, eventually: Eventually, model: str
) -> None:
    site = await sleeping()
    asking = asyncio.create_task(site.complete(model=model))
    await eventually(lambda: site.wanted.get("echo"))
    await site.add_replica()
    answer = await asking
    assert answer.status_code == 200
    assert "one" in answer.json()["completion"]["text"]
    assert site.counted(outcome="ok") == 1
    # Nobody asks any more: it may sleep again.
    await eventually(lambda: site.wanted == {"echo": False})


async def test_a_stream_is_kept_alive_while_it_waits(
    sleeping: Sleep, eventually: Eventually
) -> None:
    site = await sleeping(keepalive_s=0.05)
    async with site.wire() as client:
        body = {"model": "echo", "prompt": "one", "stream": True}
        async with client.stream("POST", "/v4/completions", json=body) as response:
            parts = response.aiter_text()
            assert (await anext(parts)).startswith(":")
            await site.add_replica()
            text = ":\n\n" + "".join([part async for part in parts])
    names = [name for name, _ in events(text)]
    assert names[0] == ":"
    assert events(text)[-1][1]["token_usage"]["completion"] == 1


async def test_who_has_waited_long_enough_is_told_when_to_come_back(sleeping: Sleep) -> None:
    site = await sleeping(hold_s=0.1)
    answer = await site.complete()
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "model_unavailable"
    assert "is not known here yet" in answer.json()["detail"]
    assert 5 <= int(answer.headers["retry-after"]) <= 60
    assert site.counted(outcome="rejected") == 1
    assert site.in_flight == 0


async def test_more_than_may_wait_are_refused_at_once(
    sleeping: Sleep, eventually: Eventually
) -> None:
    site = await sleeping(hold_max=2)
    waiting = [asyncio.create_task(site.complete()) for _ in range(2)]
    await eventually(lambda: site.in_flight == 2)
    answer = await site.complete()
    assert answer.status_code == 503
    assert "2 requests wait at this router" in answer.json()["detail"]
    assert 5 <= int(answer.headers["retry-after"]) <= 60
    await site.add_replica()
    assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200, 200]
    assert site.counted(outcome="rejected") == 1


async def test_a_place_is_free_again_once_its_request_has_left(
    sleeping: Sleep, eventually: Eventually
) -> None:
    site = await sleeping(hold_max=1, hold_s=1)
    first = asyncio.create_task(site.complete())
    await eventually(lambda: site.in_flight == 1)
    assert (await site.complete()).status_code == 503
    assert not first.done()
    assert (await first).status_code == 503
    started = asyncio.get_running_loop().time()
    assert (await site.complete()).status_code == 503
    assert asyncio.get_running_loop().time() - started >= 1


async def test_a_stream_that_waited_too_long_ends_in_an_error_event(sleeping: Sleep) -> None:
    site = await sleeping(hold_stream_s=1, keepalive_s=0.05)
    async with site.wire() as client:
        body = {"model": "echo", "prompt": "one", "stream": True}
        answer = await client.post("/v4/completions", json=body)
    assert answer.status_code == 200
    name, data = events(answer.text)[-1]
    assert name == "error"
    assert data["error"]["code"] == "model_unavailable"


async def test_a_client_that_leaves_waits_no_longer(
    sleeping: Sleep, eventually: Eventually
) -> None:
    site = await sleeping()
    _, writer = await site.send()
    await eventually(lambda: site.in_flight == 1)
    writer.close()
    await eventually(lambda: site.counted(outcome="cancelled") == 1)
    await eventually(lambda: site.wanted == {"echo": False})


async def test_estimates_come_from_what_has_been_seen(
    sleeping: Sleep, eventually: Eventually
) -> None:
    site = await sleeping(hold_s=5)
    asking = asyncio.create_task(site.complete())
    await eventually(lambda: site.wanted.get("echo"))
    await asyncio.sleep(0.2)
    await site.add_replica()
    assert (await asking).status_code == 200
    assert "its last start took" in site.router.waiting.starts.unavailable("echo").message


async def test_a_sleeping_model_is_ready_and_says_so(sleeping: Sleep) -> None:
    site = await sleeping()
    ready = await site.client.get("/ready")
    assert ready.status_code == 200
    assert ready.json()["models"]["echo"] == {"ready": True, "replicas": 0}


async def test_who_waits_is_told_when_the_model_is_removed(
    sleeping: Sleep, eventually: Eventually
) -> None:
    site = await sleeping()
    asking = asyncio.create_task(site.complete())
    await eventually(lambda: site.in_flight == 1)
    await site.router.set_catalogue(Catalogue(models=()))
    answer = await asyncio.wait_for(asking, 2)
    assert answer.status_code == 503
    assert "no longer" in answer.json()["detail"]


async def test_the_comments_say_why_and_how_long(sleeping: Sleep) -> None:
    site = await sleeping(keepalive_s=0.05)
    async with site.wire() as client:
        body = {"model": "echo.pirate", "prompt": "one", "stream": True}
        async with client.stream("POST", "/v4/completions", json=body) as response:
            first = await anext(response.aiter_text())
    assert first.startswith(
        ": model 'echo' is starting; how long it takes to start is not known here yet"
    )
