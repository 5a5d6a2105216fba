"""The ledger through a router: each admitted request is in it once, as its client saw it end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.accounts.bootstrap import make_admin_key
from serving.accounts.ledger.ledger import JournalLedger, StoreLedger
from serving.engine.echo import EchoEngine
from serving.engine.interface import Emit, Tally
from serving.router import settlement
from serving.store.engine import Store, StoreAway
from serving.wire.messages import CompletionCall
from tests.conftest import Eventually
from tests.gateway.conftest import Open, events
from tests.gateway.kept import Kept, stored
from tests.stores import PostgreSQL

COMPLETION = {"model": "echo", "prompt": "one two three"}

Keep = Callable[..., Awaitable[Kept]]


@pytest.fixture
def kind() -> str:
    """`SERVING_LEDGER`, where a test does not say it."""
    return "journal"


@pytest.fixture
def database() -> str:
    """The store's kind."""
    return "sqlite"


@pytest.fixture
def url(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> str:
    if database == "sqlite":
        return f"sqlite:///{tmp_path}/store.sqlite3"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.database()


# Every way that an installation may choose; where there is PostgreSQL, the chart chooses the last.
in_each_way = pytest.mark.parametrize(
    ("kind", "database"), [("journal", "sqlite"), ("store", "sqlite"), ("store", "postgresql")]
)


@pytest.fixture
async def keep(open_site: Open, url: str, kind: str, tmp_path: Path) -> AsyncIterator[Keep]:
    """Makes a router with a ledger: `await keep(replicas=2)`, as `open_site`."""
    store = Store(url)
    _, key = await make_admin_key(store, "test")
    usual = {"engine": {"interval_s": 0.005}, "ledger_dir": str(tmp_path / "journals")}

    async def make(**more: Any) -> Kept:
        site = await open_site(**{"store_url": url, "ledger": kind, **usual, **more})
        await site.router.prepare()
        kept = Kept(site, key, store)
        assert isinstance(kept.ledger, StoreLedger if kind == "store" else JournalLedger)
        return kept

    yield make
    await store.close()


@pytest.fixture
async def kept(keep: Keep) -> Kept:
    return await keep()


@in_each_way
@pytest.mark.parametrize("stream", [False, True])
async def test_a_completion_is_in_the_ledger_before_its_last_byte(kept: Kept, stream: bool) -> None:
    body = COMPLETION | {"stream": stream, "account_id": "acme"}
    async with kept.watched() as (client, sent):
        answer = await client.post("/v4/completions", json=body)
    assert answer.status_code == 200
    used = events(answer.text)[-1][1]["token_usage"] if stream else answer.json()["token_usage"]
    told = answer.headers["x-request-id"], used["prompt"], used["completion"]
    assert sent[-1][1] == [told]
    (row,) = await kept.entries()
    assert (row["request_id"], row["prompt_tokens"], row["completion_tokens"]) == told
    assert row["outcome"] == "ok"
    assert row["status"] == 200
    assert (row["account"], row["model"], row["served_model"]) == ("acme", "echo", "echo")
    assert (row["engine"], row["kind"], row["endpoint"]) == ("echo", "engine", "/v4/completions")
    assert row["stream"] is stream
    assert row["usage_known"] is True
    assert 0 < row["total_s"] < 30
    if stream:
        assert 0 < row["ttft_s"] <= row["total_s"]
    else:
        assert row["ttft_s"] is None
    assert (row["replica"], row["retried"]) == ("echo#1", False)


class Exact(EchoEngine):
    """Says all that an engine may say of what was used."""

    async def generate(self, call: CompletionCall, emit: Emit, tally: Tally) -> None:
        await super().generate(call, emit, tally)
        tally.queue_s, tally.cached_tokens, tally.images = 0.25, 2, 1


async def test_what_an_engine_has_counted_is_in_the_ledger(keep: Keep) -> None:
    kept = await keep(double=Exact)
    await kept.site.client.post("/v4/completions", json=COMPLETION)
    (row,) = await kept.entries()
    assert (row["queue_s"], row["cached_tokens"], row["images"]) == (0.25, 2, 1)


async def test_a_retried_request_is_there_once_with_the_replica_that_answered(keep: Keep) -> None:
    kept = await keep(replicas=2)
    kept.site.engines[0].dead = True
    for _ in range(8):
        assert (await kept.site.client.post("/v4/completions", json=COMPLETION)).is_success
    rows = await kept.entries()
    assert [row["replica"] for row in rows] == ["echo#2"] * 8
    assert sum(row["retried"] for row in rows) == len(kept.site.engines[0].calls) > 0
    assert not all(row["retried"] for row in rows)
    assert [row["completion_tokens"] for row in rows] == [3] * 8


async def test_an_alias_says_what_was_asked_for_and_what_answered(kept: Kept) -> None:
    await kept.site.client.post("/v1/completions", json={"model": "latest", "prompt": "one"})
    (row,) = await kept.entries()
    assert (row["model"], row["served_model"], row["version"]) == ("latest", "echo.pirate", "v7")


@pytest.mark.parametrize(
    ("body", "status"),
    [({"model": "nothing", "prompt": "x"}, 404), (COMPLETION | {"images": []}, 200)],
)
async def test_what_is_refused_after_it_was_admitted_is_in_it_too(
    kept: Kept, body: dict[str, Any], status: int
) -> None:
    answer = await kept.site.client.post("/v4/completions", json=body)
    assert answer.status_code == status
    (row,) = await kept.entries()
    assert row["outcome"] == ("ok" if status == 200 else "rejected")
    assert row["status"] == status


@in_each_way
@pytest.mark.parametrize(
    ("send", "status"),
    [
        ({"headers": {"x-api-key": "wrong"}, "json": COMPLETION}, 401),
        ({"content": b"{"}, 400),
    ],
)
async def test_what_was_never_admitted_is_not_in_it(
    kept: Kept, send: dict[str, Any], status: int
) -> None:
    assert (await kept.site.client.post("/v4/completions", **send)).status_code == status
    assert (await kept.site.client.get("/v1/models")).status_code == 200
    assert await kept.entries() == []


@in_each_way
async def test_a_client_that_leaves_pays_for_what_the_engine_has_made(
    kept: Kept, eventually: Eventually
) -> None:
    reader, writer = await kept.site.send(prompt="word " * 1000, stream=True)
    await reader.readuntil(b"data: ")
    writer.close()
    await eventually(lambda: kept.site.counted(outcome="cancelled"))
    deadline = time.monotonic() + 5
    while not (rows := await kept.entries()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    (row,) = rows
    assert row["outcome"] == "cancelled"
    assert row["status"] == 499
    assert 0 < row["completion_tokens"] < 1000
    assert row["usage_known"] is True


async def test_sums_are_what_the_callers_were_told(kept: Kept) -> None:
    told = {"prompt": 0, "completion": 0}
    for number in range(12):
        body = COMPLETION | {"account_id": f"a{number % 3}", "prompt": "one " * (1 + number)}
        answer = (await kept.site.client.post("/v4/completions", json=body)).json()
        for name in told:
            told[name] += answer["token_usage"][name]
    await kept.entries()
    tomorrow = "2100-01-01"
    by_account = (
        await kept.get("/v4/usage", group_by="account", start_date="2099-12-01", end_date=tomorrow)
    ).json()
    assert by_account["items"] == []
    # Sums are by whole hours, so the end lies behind the present one.
    end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    sums = (await kept.get("/v4/usage", group_by="account", end_date=end)).json()
    assert [item["account"] for item in sums["items"]] == ["a0", "a1", "a2"]
    assert [item["requests"] for item in sums["items"]] == [4, 4, 4]
    assert sums["total"]["prompt_tokens"] == told["prompt"]
    assert sums["total"]["completion_tokens"] == told["completion"]


async def test_without_a_store_usage_says_what_to_set(open_site: Open) -> None:
    site = await open_site()
    for path in ("/v4/usage", "/v4/usage/entries", "/v4/models/echo/usage-statistics"):
        answer = await site.client.get(path)
        assert answer.status_code == 501
        assert "SERVING_STORE_URL" in answer.json()["error"]["message"]


async def away(*_: object) -> None:
    raise StoreAway("nobody there")


@in_each_way
async def test_no_answer_fails_for_a_store_that_is_away(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(kept.sink, "ship", away)
        for _ in range(3):
            answer = await kept.site.client.post("/v4/completions", json=COMPLETION)
            assert answer.status_code == 200
        assert kept.unwritten == (3 if isinstance(kept.ledger, StoreLedger) else 0)
    await eventually(lambda: kept.unwritten == 0)
    assert len(await kept.entries()) == 3
    assert json.loads((await kept.get("/v4/usage/entries", limit=2)).text)["next"]


@in_each_way
async def test_requests_are_refused_while_the_store_that_is_the_ledger_is_away(
    keep: Keep, kind: str, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """If that is wanted. A journal needs no store."""
    kept = await keep(ledger_full="refuse")

    async def ask() -> httpx.Response:
        return await kept.site.client.post("/v4/completions", json=COMPLETION)

    with monkeypatch.context() as patched:
        patched.setattr(kept.sink, "ship", away)
        assert (await ask()).status_code == 200, "it had been admitted before anybody knew"
        second = await ask()
    assert second.status_code == (503 if kind == "store" else 200)
    if kind == "store":
        assert second.json()["error"]["code"] == "ledger_unavailable"
        assert "retry-after" in second.headers
    await eventually(lambda: kept.unwritten == 0)
    assert (await ask()).status_code == 200
    assert len(await kept.entries()) == (2 if kind == "store" else 3)


class SlowToStop(EchoEngine):
    """Says its last word, when it is told to stop, only once it may."""

    told: asyncio.Event
    may: asyncio.Event

    async def generate(self, call: CompletionCall, emit: Emit, tally: Tally) -> None:
        try:
            await super().generate(call, emit, tally)
        except asyncio.CancelledError:
            self.told.set()
            await self.may.wait()
            raise


@in_each_way
@pytest.mark.parametrize("speaks", [True, False])
async def test_a_router_that_closes_settles_what_it_waits_for(
    open_site: Open,
    url: str,
    kind: str,
    tmp_path: Path,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
    speaks: bool,
) -> None:
    """The client has left, the replica was told to stop, and the server cuts everything off before
    the replica has said what was used."""
    SlowToStop.told, SlowToStop.may = asyncio.Event(), asyncio.Event()
    if not speaks:
        monkeypatch.setattr(settlement, "CLOSING_S", 0.2)
    settings = {"store_url": url, "ledger": kind, "ledger_dir": str(tmp_path / "journals")}
    site = await open_site(engine={"interval_s": 0.005}, double=SlowToStop, **settings)
    reader, writer = await site.send(prompt="word " * 1000, stream=True)
    await reader.readuntil(b"data: ")
    writer.close()
    await SlowToStop.told.wait()
    closing = asyncio.create_task(site.close_router())
    await eventually(lambda: not site.router._shared._books.tasks)  # type: ignore[union-attr]
    if speaks:
        SlowToStop.may.set()
    await closing
    SlowToStop.may.set()
    (row,) = await stored(url)
    assert (row["outcome"], row["usage_known"]) == ("cancelled", speaks)
    assert (row["completion_tokens"] > 0) is speaks
