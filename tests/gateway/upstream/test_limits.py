"""Limits on concurrent requests, and the circuit."""

from __future__ import annotations

import asyncio
import time

from tests.conftest import Eventually
from tests.gateway.upstream.conftest import CANARY, Start, World, open_request
from tests.providers import Step


def gauges(world: World) -> tuple[float, float]:
    """Requests that hold one of the provider's turns, and those that wait for one."""
    names = ("serving_upstream_requests_in_flight", "serving_upstream_requests_waiting")
    running, waiting = (world.metric(name, provider="openai") for name in names)
    return running, waiting


async def test_no_more_requests_at_once_than_allowed(start: Start) -> None:
    world = await start(max_concurrency=3)
    world.openai.script = [Step(delay_s=0.1)]
    responses = await asyncio.gather(*(world.complete(stream=n % 2 == 0) for n in range(6)))
    assert [response.status_code for response in responses] == [200] * 6
    assert world.openai.most_at_once == 3


async def test_more_than_may_wait_are_refused(start: Start, eventually: Eventually) -> None:
    world = await start(max_concurrency=1)
    world.openai.script = [Step(delay_s=0.5)]
    running = [asyncio.create_task(world.complete()) for _ in range(2)]
    await eventually(lambda: gauges(world) == (1, 1))
    response = await world.complete()
    assert (response.status_code, response.json()["error"]["code"]) == (503, "overloaded")
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert [(await task).status_code for task in running] == [200, 200]


async def test_who_waits_is_told_from_who_is_served(start: Start, eventually: Eventually) -> None:
    world = await start(max_concurrency=2)
    world.openai.script = [Step(delay_s=0.2)]
    running = [asyncio.create_task(world.complete()) for _ in range(3)]
    await eventually(lambda: gauges(world) == (2, 1))
    # The router has all of them.
    assert world.metric("serving_requests_in_flight", model="m-openai") == 3
    await asyncio.gather(*running)
    assert gauges(world) == (0, 0)


async def test_the_circuit_opens_and_closes(start: Start) -> None:
    world = await start(max_retries=0, breaker_failures=3, breaker_s=0.4)
    world.openai.script = [Step(500)]
    for _ in range(3):
        assert (await world.complete()).status_code == 502
    began = time.monotonic()
    response = await world.complete()
    assert time.monotonic() - began < 0.2
    assert (response.status_code, response.json()["error"]["code"]) == (503, "model_unavailable")
    assert response.headers["retry-after"] == "1"
    assert len(world.openai.requests) == 3, "nothing was sent"
    assert world.metric("serving_upstream_circuit", provider="openai", state="open") == 1
    assert (await world.complete("gemini")).status_code == 200, "the others are not affected"
    await asyncio.sleep(0.4)
    assert (await world.complete()).status_code == 502, "the probe"
    assert (await world.complete()).status_code == 503
    assert len(world.openai.requests) == 4
    await asyncio.sleep(0.4)
    world.openai.script = [Step(delay_s=0.1)]
    probe, other = await asyncio.gather(world.complete(), world.complete())
    assert sorted((probe.status_code, other.status_code)) == [200, 503], "one probe at a time"
    assert (await world.complete()).status_code == 200
    assert world.metric("serving_upstream_circuit", provider="openai", state="closed") == 1


async def test_client_errors_and_rate_limits_do_not_open_it(start: Start) -> None:
    world = await start(max_retries=0, breaker_failures=1)
    for status in (400, 404, 413, 422, 429, 401):
        world.openai.script = [Step(status)]
        assert (await world.complete()).status_code >= 400
    world.openai.script = [Step()]
    assert (await world.complete()).status_code == 200


async def test_clients_that_leave_do_not_open_it(start: Start, eventually: Eventually) -> None:
    world = await start(max_retries=0, breaker_failures=1)
    world.openai.script = [Step(delay_s=60)]
    body = {"model": "m-openai", "prompt": CANARY}
    _, writer = await open_request(world.site, "/v4/completions", body)
    await eventually(lambda: world.openai.requests)
    writer.close()
    await eventually(lambda: world.idle, 1)
    world.openai.script = [Step()]
    assert (await world.complete()).status_code == 200


async def test_streams_that_break_off_open_it(start: Start) -> None:
    world = await start(max_retries=0, breaker_failures=2)
    world.openai.script = [Step(breaks="cut")]
    for _ in range(2):
        assert "event: error" in (await world.complete(stream=True)).text
    assert (await world.complete()).status_code == 503
