"""A model that has lost its last replica: requests wait for the next one, within their hold."""

from __future__ import annotations

import asyncio
import time

import pytest

from serving.catalogue.catalogue import Catalogue
from serving.engine.interface import Emit, Tally
from serving.errors import EngineFailed, Overloaded
from serving.router import waiting
from serving.wire.messages import CompletionCall
from tests.conftest import Eventually
from tests.gateway.conftest import Open, Site, events

SLOW = {"interval_s": 60}


async def lose(site: Site, eventually: Eventually) -> None:
    """Kill the only replica."""
    await site.kill(0)
    await eventually(lambda: not site.fleet.ready("echo"))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_waits_for_the_next_replica(
    site: Site, eventually: Eventually, stream: bool
) -> None:
    await lose(site, eventually)
    asking = [asyncio.create_task(site.complete(stream=stream)) for _ in range(5)]
    await eventually(lambda: site.in_flight == 5)
    await site.add_replica()
    for answer in await asyncio.gather(*asking):
        assert answer.status_code == 200
        assert "one" in answer.text
    assert site.counted(outcome="ok") == site.counted() == 5
    await eventually(lambda: site.idle)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_on_the_dead_replica_waits_too(
    open_site: Open, eventually: Eventually, stream: bool
) -> None:
    site = await open_site(engine=SLOW)
    asking = asyncio.create_task(site.complete(stream=stream))
    await eventually(lambda: site.running)
    await site.kill(0)
    await eventually(lambda: not site.fleet.ready("echo"))
    assert not asking.done()
    engine = await site.add_replica()
    engine.interval_s = 0
    answer = await asking
    assert answer.status_code == 200
    assert "three" in answer.text
    assert site.counted(outcome="ok") == site.counted() == 1
    retries = site.metrics.registry.get_sample_value("serving_retries_total", {"model": "echo"})
    assert retries == 1


async def test_a_dying_replica_that_still_listens_is_not_asked_again(
    site: Site, eventually: Eventually
) -> None:
    """An engine server says that its engine is dead, and closes its links a moment later."""
    site.engines[0].dead = True
    asking = [asyncio.create_task(site.complete()) for _ in range(3)]
    await eventually(lambda: len(site.engines[0].calls) == 3)
    await asyncio.sleep(0.05)
    await lose(site, eventually)
    await site.add_replica()
    assert [answer.status_code for answer in await asyncio.gather(*asking)] == [200] * 3
    assert len(site.engines[0].calls) == 3


async def test_a_dying_replica_may_close_after_the_new_one_is_there(
    site: Site, eventually: Eventually
) -> None:
    site.engines[0].dead = True
    asking = asyncio.create_task(site.complete())
    await eventually(lambda: site.engines[0].calls)
    await asyncio.sleep(0.05)
    await site.add_replica()
    await asyncio.sleep(0)
    await site.kill(0)
    assert (await asking).status_code == 200


async def test_a_replica_that_failed_and_did_not_die_is_asked_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = site.engines[0].generate

    async def fail_once(call: CompletionCall, emit: Emit, tally: Tally) -> None:
        monkeypatch.setattr(site.engines[0], "generate", works)
        raise EngineFailed("the engine of this replica failed")

    monkeypatch.setattr(site.engines[0], "generate", fail_once)
    async with asyncio.timeout(2):
        assert (await site.complete()).status_code == 200


async def test_a_replica_that_drained_is_followed_by_another(
    site: Site, eventually: Eventually
) -> None:
    """`serving apply` replaces a changed model's only replica."""
    await site.servers[0].drain(0.1)
    await eventually(lambda: not site.fleet.ready("echo"))
    asking = asyncio.create_task(site.complete())
    await eventually(lambda: site.in_flight == 1)
    await site.kill(0)
    await site.add_replica()
    assert (await asking).status_code == 200


async def test_only_the_engines_death_brings_another(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(call: CompletionCall, emit: Emit, tally: Tally) -> None:
        raise Overloaded("the queue of this replica is full")

    monkeypatch.setattr(site.engines[0], "generate", full)
    async with asyncio.timeout(2):
        answer = await site.complete()
    assert answer.status_code == 503
    error = answer.json()["error"]
    assert error["code"] == "overloaded", "the model is there, and has too much to do"
    assert error["message"] == "the queue of this replica is full"
    assert 1 <= int(answer.headers["retry-after"]) <= 60


async def test_who_has_waited_long_enough_is_told_the_truth(
    open_site: Open, eventually: Eventually
) -> None:
    site = await open_site(hold_s=0.2)
    await lose(site, eventually)
    answer = await site.complete()
    assert answer.status_code == 503
    error = answer.json()["error"]
    assert error["code"] == "model_unavailable"
    assert "lost its last replica 0 s ago" in error["message"]
    assert "asleep" not in answer.text
    assert 5 <= int(answer.headers["retry-after"]) <= 60
    assert site.counted(outcome="rejected") == site.counted() == 1


async def test_one_hold_is_all_that_a_request_waits(
    open_site: Open, eventually: Eventually
) -> None:
    """However often replicas come and go meanwhile."""
    site = await open_site(engine=SLOW, hold_s=1)
    await lose(site, eventually)
    started = time.monotonic()
    asking = asyncio.create_task(site.complete())
    await eventually(lambda: site.in_flight == 1)
    await asyncio.sleep(0.6)
    await site.add_replica()
    await eventually(lambda: site.engines[1].running)
    await site.kill(1)
    answer = await asking
    assert answer.status_code == 503
    assert 0.9 < time.monotonic() - started < 1.5


async def test_more_than_may_wait_are_refused_at_once(
    open_site: Open, eventually: Eventually
) -> None:
    site = await open_site(hold_max=2)
    await lose(site, eventually)
    asking = [asyncio.create_task(site.complete()) for _ in range(2)]
    await eventually(lambda: site.in_flight == 2)
    answer = await site.complete()
    assert answer.status_code == 503
    assert "has lost its last replica, and 2 requests wait" in answer.json()["detail"]
    await site.add_replica()
    assert [answer.status_code for answer in await asyncio.gather(*asking)] == [200, 200]


async def test_a_stream_is_told_why_it_waits(open_site: Open, eventually: Eventually) -> None:
    site = await open_site(keepalive_s=0.05)
    await lose(site, eventually)
    body = {"model": "echo", "prompt": "one", "stream": True}
    async with site.wire() as wire, wire.stream("POST", "/v4/completions", json=body) as response:
        parts = response.aiter_text()
        first = await anext(parts)
        await site.add_replica()
        rest = "".join([part async for part in parts])
    assert first.startswith(": model 'echo' lost its last replica and starts again; ")
    assert events(rest)[-1][1]["completion"]["finish_reason"] == "stop"


async def test_who_waits_is_told_when_the_model_is_removed(
    site: Site, eventually: Eventually
) -> None:
    await lose(site, eventually)
    asking = asyncio.create_task(site.complete())
    await eventually(lambda: site.in_flight == 1)
    await site.router.set_catalogue(Catalogue(models=()))
    answer = await asyncio.wait_for(asking, 2)
    assert answer.status_code == 503
    assert "no longer" in answer.json()["detail"]


async def test_a_model_that_stays_away_holds_nobody(
    site: Site, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PATIENCE_S", 0.0)
    await lose(site, eventually)
    async with asyncio.timeout(2):
        answer = await site.complete()
    assert answer.status_code == 503
    assert "no replica" in answer.json()["detail"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_router_that_starts_while_a_replica_is_away_waits_for_it(
    open_site: Open, eventually: Eventually, stream: bool
) -> None:
    site = await open_site(replicas=0)
    asking = asyncio.create_task(site.complete(stream=stream))
    await eventually(lambda: site.in_flight == 1)
    await site.add_replica()
    answer = await asyncio.wait_for(asking, 5)
    assert answer.status_code == 200
    assert "one" in answer.text
    assert site.wanted == {}, "nobody has to start it"


async def test_who_waits_for_a_model_that_was_never_seen_is_told_so(open_site: Open) -> None:
    site = await open_site(replicas=0, hold_s=0.1)
    answer = await site.complete()
    assert answer.status_code == 503
    assert "has had no replica yet in the 0 s" in answer.json()["error"]["message"]
    assert "lost" not in answer.text


async def test_a_model_that_never_comes_up_holds_nobody(
    open_site: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PATIENCE_S", 0.0)
    site = await open_site(replicas=0)
    async with asyncio.timeout(2):
        assert (await site.complete()).status_code == 503


async def test_a_link_that_breaks_and_comes_back_is_enough(
    site: Site, eventually: Eventually
) -> None:
    """The replica lives; only the connection was lost."""
    (link,) = site.fleet.links("echo")
    link._transport.abort()  # type: ignore[union-attr]
    await eventually(lambda: not site.fleet.ready("echo"))
    assert (await site.complete()).status_code == 200


async def test_a_model_that_may_sleep_and_dies_in_use_was_not_asleep(
    open_site: Open, eventually: Eventually
) -> None:
    site = await open_site(hold_s=0.2)
    models = [
        model.model_dump() | ({"min_replicas": 0, "idle_s": 60} if model.id == "echo" else {})
        for model in site.catalogue.models
    ]
    await site.router.set_catalogue(Catalogue.model_validate({"models": models}))
    assert (await site.complete()).status_code == 200
    await lose(site, eventually)
    answer = await site.complete()
    assert answer.status_code == 503
    assert "lost its last replica" in answer.json()["detail"]
