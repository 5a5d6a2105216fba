"""The ledger through a router: each admitted request is in it once, as its client saw it end."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.accounts.bootstrap import make_admin_key
from serving.accounts.ledger import segment
from serving.engine.echo import EchoEngine
from serving.engine.interface import Emit, Tally
from serving.router import settlement
from serving.store.engine import Store
from serving.store.usage import Span, Usage
from serving.wire.messages import CompletionCall
from tests.conftest import Eventually
from tests.gateway.conftest import Open, Site, events

COMPLETION = {"model": "echo", "prompt": "one two three"}


class Kept:
    """A router with a ledger, as an administrator reads it."""

    def __init__(self, site: Site, key: str) -> None:
        self.site = site
        self.headers = {"x-api-key": key}

    async def get(self, path: str, **query: Any) -> httpx.Response:
        return await self.site.client.get(path, headers=self.headers, params=query)

    async def entries(self) -> list[dict[str, Any]]:
        """Everything that has reached the store."""
        await self.site.router.books.ledger._shipper.ship_all()  # type: ignore[union-attr]
        answer = await self.get("/v4/usage/entries")
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["items"]
        return found


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.sqlite3"


@pytest.fixture
async def kept(open_site: Open, url: str) -> Kept:
    store = Store(url)
    _, key = await make_admin_key(store, "test")
    await store.close()
    site = await open_site(store_url=url, engine={"interval_s": 0.005})
    await site.router.prepare()
    return Kept(site, key)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_completion_is_in_the_ledger_before_its_last_byte(kept: Kept, stream: bool) -> None:
    body = COMPLETION | {"stream": stream, "account_id": "acme"}
    answer = await kept.site.client.post("/v4/completions", json=body)
    assert answer.status_code == 200
    used = events(answer.text)[-1][1]["token_usage"] if stream else answer.json()["token_usage"]
    # Read where it was written, not where it is shipped to.
    journal = kept.site.router.books.ledger._journal  # type: ignore[union-attr]
    ((_, entry),) = segment.entries(journal.folder)
    assert (entry.prompt_tokens, entry.completion_tokens) == (used["prompt"], used["completion"])
    assert entry.request_id == answer.headers["x-request-id"]
    (row,) = await kept.entries()
    assert row["outcome"] == "ok"
    assert row["status"] == 200
    assert (row["account"], row["model"], row["served_model"]) == ("acme", "echo", "echo")
    assert (row["engine"], row["kind"], row["endpoint"]) == ("echo", "engine", "/v4/completions")
    assert row["stream"] is stream
    assert row["usage_known"] is True
    assert 0 < row["total_s"] < 30
    assert row["replica"]


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


async def test_nobody_waits_for_a_store_that_is_away(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        from serving.store.engine import StoreAway

        raise StoreAway("nobody there")

    shipper = kept.site.router.books.ledger._shipper  # type: ignore[union-attr]
    with monkeypatch.context() as patched:
        patched.setattr(shipper._sink, "ship", away)
        for _ in range(3):
            answer = await kept.site.client.post("/v4/completions", json=COMPLETION)
            assert answer.status_code == 200
    assert len(await kept.entries()) == 3
    assert json.loads((await kept.get("/v4/usage/entries", limit=2)).text)["next"]


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


@pytest.mark.parametrize("speaks", [True, False])
async def test_a_router_that_closes_settles_what_it_waits_for(
    open_site: Open, url: str, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, speaks: bool
) -> None:
    """The client has left, the replica was told to stop, and the server cuts everything off before
    the replica has said what was used."""
    SlowToStop.told, SlowToStop.may = asyncio.Event(), asyncio.Event()
    if not speaks:
        monkeypatch.setattr(settlement, "CLOSING_S", 0.2)
    site = await open_site(store_url=url, engine={"interval_s": 0.005}, double=SlowToStop)
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


async def stored(url: str) -> list[dict[str, Any]]:
    """The entries of a store whose router has ended."""
    store = Store(url)
    try:
        now = datetime.now(UTC)
        return await Usage(store).entries(Span(now - timedelta(days=1), now + timedelta(days=1)))
    finally:
        await store.close()
