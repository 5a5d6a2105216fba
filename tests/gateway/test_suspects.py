"""A request that ends an engine ends one, and one that does so in a later step than its first ends
two at most; its callers are told."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from serving.engine.interface import Emit, Suspect, Tally
from serving.errors import EngineFailed, Overloaded
from serving.router import copies, doubts
from serving.wire.messages import CompletionCall, Sampling
from tests.conftest import Eventually
from tests.gateway.conftest import Open, Site, events
from tests.gateway.mortal import (
    LATE_PROMPT,
    MARK,
    STEP_S,
    LateEngine,
    MortalEngine,
    counted,
    supervised,
)


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
    open_site: Open, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """The same request waits in the other replica's queue when the first one dies."""
    monkeypatch.setattr(copies, "TOGETHER", 1)  # as two routers would send them
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


async def test_two_deaths_tell_it_from_those_that_stood_beside_it_both_times(
    open_site: Open, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """All are whole answers, so all are sent again, and there is one other replica only."""
    monkeypatch.setattr(doubts, "APART_S", 0.05)
    site = await open_site(replicas=1, engine={"interval_s": STEP_S}, double=LateEngine)
    asking = []
    for number in range(8):
        asking.append(asyncio.create_task(site.complete(f"number {number} " * 20)))
        await asyncio.sleep(1.5 * STEP_S)
    killer = asyncio.create_task(site.complete(LATE_PROMPT))
    await eventually(lambda: site.engines[0].running == 9)
    other = await site.add_replica()
    async with supervised(site) as supervisor:
        answer = await killer
        assert {(await each).status_code for each in asking} == {200}
        assert answer.status_code == 500
        assert answer.headers["x-should-retry"] == "false"
        assert answer.json()["error"]["code"] == "request_quarantined"
        assert other.dead
        assert len(supervisor.lost) == 2
        again = await site.complete(LATE_PROMPT)
        assert again.json()["error"]["code"] == "request_quarantined"
        assert len(supervisor.lost) == 2
    assert counted(site, "serving_suspects_total") == 1
    assert len(site.router.doubts) == 0


async def test_a_stream_that_runs_elsewhere_is_given_up_when_its_twins_have_ended_two(
    open_site: Open, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(copies, "TOGETHER", 1)  # as three routers would send them
    site = await open_site(replicas=3, engine={"interval_s": STEP_S}, double=LateEngine)
    for engine in site.engines:
        engine.AT = 1000  # type: ignore[attr-defined]
    prompt = LATE_PROMPT * 5
    twins = [asyncio.create_task(site.complete(prompt, stream=True)) for _ in range(3)]
    await eventually(lambda: all(engine.running for engine in site.engines))
    for engine in site.engines[:2]:
        engine.AT = 20  # type: ignore[attr-defined]
    frames = [events((await twin).text) for twin in twins]
    codes = [each[-1][1]["error"]["code"] for each in frames]
    assert sorted(codes)[-1] == "request_quarantined"
    assert [engine.dead for engine in site.engines] == [True, True, False]
    await eventually(lambda: site.idle)
