"""A request that ends an engine ends one, and harms nobody but those whose answers had begun there.

The engines die in the step that first runs a marked request. What a replica's process does when its
engine has died, and what replaces it, is played by `Supervisor`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import httpx
import openai
import pytest

from serving.catalogue.spec import EngineSpec
from serving.engine.echo import EchoEngine
from serving.engine.interface import Emit, Reply, Suspect, Tally
from serving.engine.server import CHECK_INTERVAL_S
from serving.errors import EngineFailed, Overloaded
from serving.wire.messages import CompletionCall, HttpCall, Sampling
from tests.conftest import Eventually
from tests.gateway.conftest import KEY, Open, Site, events

MARK = "poison"
# `make test-suspects` sets a minute.
SECONDS = float(os.environ.get("SUSPECTS_S", "3"))
CLIENTS = 8
STEP_S = 0.01
RESTART_S = 0.5


class MortalEngine(EchoEngine):
    """Dies in its first step of a call whose prompt or body has the mark, and accuses that call."""

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec)
        self.died_of: list[Suspect] = []

    async def generate(self, call: CompletionCall, emit: Emit, tally: Tally) -> None:
        if MARK in call.prompt:
            await self._die_of(Suspect(call, b""))
        await super().generate(call, emit, tally)

    async def http(self, call: HttpCall, body: bytes, reply: Reply, tally: Tally) -> None:
        if MARK.encode() in body:
            await self._die_of(Suspect(call, body))
        await super().http(call, body, reply, tally)

    async def _die_of(self, suspect: Suspect) -> None:
        await self.check()
        self.calls.append(suspect.call)
        await asyncio.sleep(self.interval_s)
        await self.check()
        self.dead = True
        self.died_of.append(suspect)
        raise EngineFailed("the engine is dead")

    def suspects(self) -> Sequence[Suspect]:
        return self.died_of


class Supervisor:
    """Ends each replica whose engine has died, as its server does, and starts another."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.lost: set[str] = set()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S / 2)
            for number, engine in enumerate(self.site.engines):
                name = f"echo#{number + 1}"
                if engine.dead and name not in self.lost:
                    self.lost.add(name)
                    await self._replace(number, name)

    async def _replace(self, number: int, name: str) -> None:
        self.site.servers[number].blame.tell()
        await asyncio.sleep(CHECK_INTERVAL_S)
        await self.site.kill(number)
        self.site.entries[:] = [entry for entry in self.site.entries if entry.id != name]
        self.site.fleet.update(self.site.entries)
        await asyncio.sleep(RESTART_S)
        await self.site.add_replica()


@contextlib.asynccontextmanager
async def supervised(site: Site) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(site)
    task = asyncio.create_task(supervisor.run())
    yield supervisor
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def counted(site: Site, name: str) -> float:
    return site.metrics.registry.get_sample_value(name, {"model": "echo"}) or 0


@pytest.fixture
async def mortal(open_site: Open) -> Site:
    return await open_site(replicas=2, engine={"interval_s": STEP_S}, double=MortalEngine)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v4/completions", "/v1/completions"])
async def test_the_answer_says_what_happened(mortal: Site, path: str, stream: bool) -> None:
    body = {"model": "echo", "prompt": MARK, "stream": stream}
    first = await mortal.client.post(path, json=body)
    assert first.status_code == 500
    assert first.headers["x-should-retry"] == "false"
    assert first.json()["error"]["code"] == "engine_killed_by_request"
    assert sum(engine.dead for engine in mortal.engines) == 1
    again = await mortal.client.post(path, json=body, headers={"x-request-id": "another"})
    assert again.status_code == 500
    assert again.headers["x-should-retry"] == "false"
    assert again.json()["error"]["code"] == "request_quarantined"
    assert sum(engine.dead for engine in mortal.engines) == 1
    assert counted(mortal, "serving_suspects_total") == 1
    assert counted(mortal, "serving_quarantined_total") == 1
    assert counted(mortal, "serving_retries_total") == 0
    assert (mortal.counted(outcome="error"), mortal.counted(outcome="rejected")) == (1, 1)


async def test_a_suspect_that_has_had_a_comment_is_told_in_its_stream(open_site: Open) -> None:
    site = await open_site(engine={"interval_s": 1}, keepalive_s=0.05, double=MortalEngine)
    frames = events((await site.complete(MARK, stream=True)).text)
    assert frames[0] == (":", None)
    assert frames[-1][1]["error"]["code"] == "engine_killed_by_request"


async def test_whoever_sends_it_and_leaves_is_known_too(
    mortal: Site, eventually: Eventually
) -> None:
    """Its call is cancelled in the step that kills the engine; the server's look tells of it."""
    engine = mortal.engines[0]
    link = mortal.fleet.links("echo")[0]
    answer = link.open(CompletionCall("r1", "echo", MARK, False, Sampling(), "echo"))
    await eventually(lambda: engine.calls)
    answer.abandon()
    engine.dead = True
    engine.died_of.append(Suspect(engine.calls[0], b""))  # type: ignore[attr-defined]
    mortal.servers[0].blame.tell()
    await eventually(lambda: len(mortal.router.quarantine))


async def test_every_router_hears_of_it(open_site: Open, eventually: Eventually) -> None:
    """A router that had nothing to do with it refuses it too."""
    site = await open_site(replicas=2, engine={"interval_s": STEP_S}, double=MortalEngine)
    other = Site(site.log_folder.parent / "other", {}, {}, {}, None)
    try:
        await other.router.set_catalogue(site.catalogue)
        other.fleet.update(site.entries)
        await eventually(lambda: other.fleet.ready("echo") == 2)
        assert (await site.complete(MARK)).json()["error"]["code"] == "engine_killed_by_request"
        await eventually(lambda: len(other.router.quarantine))
        assert (await other.complete(MARK)).json()["error"]["code"] == "request_quarantined"
        assert sum(engine.dead for engine in site.engines) == 1
    finally:
        await other.close()


async def test_a_twin_on_another_replica_is_given_up(
    open_site: Open, eventually: Eventually
) -> None:
    """The same request waits in the other replica's queue when the first one dies."""
    site = await open_site(replicas=2, engine={"interval_s": 60}, double=MortalEngine)
    twins = [asyncio.create_task(site.complete(MARK)) for _ in range(2)]
    await eventually(lambda: all(engine.calls for engine in site.engines))
    dying = site.engines[0]
    dying.dead = True
    dying.died_of.append(Suspect(dying.calls[0], b""))  # type: ignore[attr-defined]
    site.servers[0].blame.tell()
    await eventually(lambda: len(site.router.quarantine))
    await site.kill(0)
    codes = {response.json()["error"]["code"] for response in await asyncio.gather(*twins)}
    assert codes == {"request_quarantined"}
    assert not site.engines[1].dead
    await eventually(lambda: site.idle)


async def test_retries_are_bounded(open_site: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that fails every request and lives: beyond the budget, its 503 is passed on
    instead of doubling the load of the others."""

    async def give_up(call: CompletionCall, emit: Emit, tally: Tally) -> None:
        raise EngineFailed("the engine gave this request up")

    site = await open_site(replicas=2)
    monkeypatch.setattr(site.engines[0], "generate", give_up)
    codes = Counter([(await site.complete()).status_code for _ in range(200)])
    retried = counted(site, "serving_retries_total")
    assert 20 < retried <= 40, "20, and a tenth of 200"
    assert codes[503] == counted(site, "serving_retries_refused_total") > 0
    assert codes[200] + codes[503] == 200


@pytest.mark.parametrize("path", ["/v4/completions", "/v1/completions"])
async def test_what_is_not_sent_again_is_no_retry(
    site: Site, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """The only replica is full: there is no other to send its requests to, and they take nothing
    from those that could be sent again."""

    async def refuse(*_: object) -> None:
        raise Overloaded("the queue of this replica is full")

    monkeypatch.setattr(site.engines[0], "generate", refuse)
    monkeypatch.setattr(site.engines[0], "http", refuse)
    body = {"model": "echo", "prompt": "one"}
    for _ in range(50):
        assert (await site.client.post(path, json=body)).status_code == 503
    assert counted(site, "serving_retries_total") == 0
    assert counted(site, "serving_retries_refused_total") == 0
    assert '"retried": true' not in site.log_text()


async def test_a_dead_engine_gets_nothing_more(mortal: Site, eventually: Eventually) -> None:
    """Its server ends a moment later; calls that fail at once would make it the least busy."""
    await mortal.complete(MARK)
    (number,) = [n for n, engine in enumerate(mortal.engines) if engine.dead]
    before = len(mortal.engines[number].calls)
    answers = await asyncio.gather(*(mortal.complete() for _ in range(100)))
    assert {response.status_code for response in answers} == {200}
    assert len(mortal.engines[number].calls) == before
    assert counted(mortal, "serving_retries_total") == 0


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


@pytest.mark.parametrize("how", ["whole", "stream", "create completion"])
async def test_eight_clients_that_insist_end_one_replica(
    mortal: Site, eventually: Eventually, how: str
) -> None:
    """The first is a moment ahead: until an engine has died, nobody can know its request."""
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
            if not number:
                await eventually(lambda: len(mortal.router.quarantine))
        done, _ = await asyncio.wait(tasks, timeout=SECONDS, return_when=asyncio.FIRST_EXCEPTION)
        if not done:
            # On a busy machine everything takes longer.
            await eventually(lambda: others.enough and codes["request_quarantined"] > CLIENTS, 60)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
    assert len(supervisor.lost) == 1
    assert set(codes) == {"engine_killed_by_request", "request_quarantined"}
    assert codes["engine_killed_by_request"] == 1
    assert codes["request_quarantined"] > CLIENTS
    assert set(others.whole) == {200}
    assert others.enough
    assert set(others.streams) <= {"ok", "broken"}
    assert set(others.broken) <= {"engine_failed"}
    # No more than ran there at that moment.
    assert len(others.broken) <= 12
