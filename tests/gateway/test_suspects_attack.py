"""Clients that insist on a deadly request harm nobody but those whose answers had begun there."""

from __future__ import annotations

import asyncio
import os
from collections import Counter

import httpx
import openai
import pytest

from tests.conftest import Eventually
from tests.gateway.conftest import KEY, Open, Site, events
from tests.gateway.mortal import (
    LATE_PROMPT,
    MARK,
    STEP_S,
    LateEngine,
    MortalEngine,
    supervised,
)

# `make test-suspects` sets a minute.
SECONDS = float(os.environ.get("SUSPECTS_S", "3"))
CLIENTS = 8


@pytest.fixture
async def mortal(open_site: Open) -> Site:
    return await open_site(replicas=2, engine={"interval_s": STEP_S}, double=MortalEngine)


class Bystanders:
    """Requests beside the deadly ones, each one of a loop; what came of them."""

    def __init__(self, site: Site, wire: httpx.AsyncClient) -> None:
        self.site = site
        self.wire = wire
        self.whole: Counter[int] = Counter()
        self.streams: Counter[str] = Counter()
        self.broken: list[str] = []

    @property
    def enough(self) -> bool:
        """They have seen more than the engine's death."""
        return self.whole[200] > 20 and self.streams["ok"] > 10

    async def ask(self, path: str) -> None:
        body = {"model": "echo", "prompt": "one two three four"}
        while True:
            response = await self.wire.post(path, json=body)
            self.whole[response.status_code] += 1

    async def listen(self, path: str) -> None:
        body = {"model": "echo", "prompt": "one two three four " * 5, "stream": True}
        while True:
            response = await self.wire.post(path, json=body)
            frames = [data for _, data in events(response.text) if data]
            last = frames[-1]
            if response.status_code != 200:
                self.streams["refused"] += 1
            elif last != "[DONE]" and "error" in last:
                self.streams["broken"] += 1
                self.broken.append(last["error"]["code"])
                assert len(frames) > 1, "its answer had not begun: it could have been sent again"
            else:
                self.streams["ok"] += 1


async def attack_with_sdk(client: openai.AsyncOpenAI, stream: bool, codes: Counter[str]) -> None:
    """Send the deadly request again and again, with the SDK's own retries."""
    while True:
        try:
            answer = await client.completions.create(model="echo", prompt=MARK, stream=stream)
        except openai.APIStatusError as error:
            codes[str(error.code)] += 1
        else:
            codes["answered"] += 1
            if stream:
                async for _ in answer:
                    pass
        await asyncio.sleep(0.01)


async def attack_with_retries(wire: httpx.AsyncClient, codes: Counter[str]) -> None:
    """The same on Create Completion, as a client of Stainless' make does it."""
    while True:
        for _ in range(3):
            response = await wire.post("/v4/completions", json={"model": "echo", "prompt": MARK})
            codes[response.json()["error"]["code"]] += 1
            if response.headers.get("x-should-retry") == "false":
                break
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.01)


async def go_on(
    tasks: list[asyncio.Task[None]],
    others: Bystanders,
    codes: Counter[str],
    eventually: Eventually,
) -> None:
    """Let all ask until they have seen enough; raises what one of them did not expect."""
    done, _ = await asyncio.wait(tasks, timeout=SECONDS, return_when=asyncio.FIRST_EXCEPTION)
    if not done:
        # On a busy machine everything takes longer.
        await eventually(lambda: others.enough and codes["request_quarantined"] > CLIENTS, 60)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("how", ["whole", "stream", "create completion"])
async def test_eight_clients_that_insist_end_one_replica(
    mortal: Site, eventually: Eventually, how: str, at_once: bool
) -> None:
    """Also those that begin at the same moment, when nobody can know their request."""
    codes: Counter[str] = Counter()
    base = f"http://127.0.0.1:{await mortal.listen()}"
    async with (
        supervised(mortal) as supervisor,
        mortal.wire() as wire,
        openai.AsyncOpenAI(base_url=f"{base}/v1", api_key=KEY["x-api-key"]) as sdk,
    ):
        others = Bystanders(mortal, wire)
        tasks = [
            asyncio.create_task(do(path))
            for path in ("/v4/completions", "/v1/completions")
            for do in (others.ask, others.listen)
            for _ in range(6)
        ]
        await asyncio.sleep(0.2)
        for number in range(CLIENTS):
            attack = (
                attack_with_retries(wire, codes)
                if how == "create completion"
                else attack_with_sdk(sdk, how == "stream", codes)
            )
            tasks.append(asyncio.create_task(attack))
            if not number and not at_once:
                await eventually(lambda: len(mortal.router.quarantine))
        await go_on(tasks, others, codes, eventually)
    assert len(supervisor.lost) == 1
    assert set(codes) == {"engine_killed_by_request", "request_quarantined"}
    assert 1 <= codes["engine_killed_by_request"] <= (CLIENTS if at_once else 1)
    assert codes["request_quarantined"] > CLIENTS
    assert set(others.whole) == {200}
    assert others.enough
    assert set(others.streams) <= {"ok", "broken"}
    assert set(others.broken) <= {"engine_failed"}
    # No more than ran there at that moment.
    assert len(others.broken) <= 12


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_eight_clients_that_insist_on_a_later_step_end_two_replicas(
    open_site: Open, eventually: Eventually, stream: bool, at_once: bool
) -> None:
    """Their request is in doubt after the first, and convicted by the second."""
    site = await open_site(replicas=3, engine={"interval_s": STEP_S}, double=LateEngine)
    codes: Counter[str] = Counter()

    async def attack(wire: httpx.AsyncClient) -> None:
        body = {"model": "echo", "prompt": LATE_PROMPT, "stream": stream}
        while True:
            response = await wire.post("/v4/completions", json=body)
            told = response.json() if response.status_code != 200 else events(response.text)[-1][1]
            codes[told["error"]["code"]] += 1
            await asyncio.sleep(0.01)

    async with supervised(site) as supervisor, site.wire() as wire:
        others = Bystanders(site, wire)
        tasks = [
            asyncio.create_task(do("/v4/completions"))
            for do in (others.ask, others.listen)
            for _ in range(6)
        ]
        await asyncio.sleep(0.3)
        for number in range(CLIENTS):
            tasks.append(asyncio.create_task(attack(wire)))
            if not number and not at_once:
                await eventually(lambda: len(site.router.doubts), 10)
        await go_on(tasks, others, codes, eventually)
    assert len(supervisor.lost) == 2
    assert set(codes) <= {"engine_failed", "request_quarantined"}
    assert codes["request_quarantined"] > CLIENTS
    assert set(others.whole) == {200}
    assert others.enough
    assert set(others.streams) <= {"ok", "broken"}
    assert set(others.broken) <= {"engine_failed"}
    assert len(others.broken) <= 12
