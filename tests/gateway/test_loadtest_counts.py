"""The load generator's counts against a real router's metrics, over sockets, to the token."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from loadtests.measure.ledger import Ledger
from loadtests.measure.scrape import Scraper
from serving.accounts.bootstrap import make_admin_key
from serving.store.engine import Store
from tests.counting import Counts, counted, findings
from tests.gateway.conftest import KEY, Open, Site

STREAMED = {"name": "streamed", "models": {"echo": 1}, "output": 12, "prompt": {"tokens": 12}}


async def run(site: Site, *traffic: dict[str, Any]) -> Counts:
    """A second of requests."""
    url = f"http://127.0.0.1:{await site.listen()}"
    return await counted(url, KEY["x-api-key"], Scraper((f"{url}/metrics",)), *traffic, rate=60)


async def test_to_the_token(open_site: Open) -> None:
    site = await open_site(replicas=2, engine={"interval_s": 0.005})
    counts = await run(site, STREAMED, {**STREAMED, "name": "whole", "stream": False})
    assert findings(counts) == {}
    assert all(count.client == count.server for count in counts.values())
    tokens = counts["completion tokens"]
    assert tokens.client == 12 * counts["requests ok"].client > 0


async def test_callers_that_leave_and_requests_that_are_refused(open_site: Open) -> None:
    site = await open_site(engine={"interval_s": 0.01})
    leaving = {**STREAMED, "name": "leaving", "cancel": {"share": 1, "after_tokens": 2}}
    unknown = {**STREAMED, "name": "unknown", "models": {"no-such-model": 1}}
    counts = await run(site, STREAMED, leaving, unknown)
    assert findings(counts) == {}
    assert counts["requests cancelled"].client > 0
    assert counts["requests failed"].client == counts["requests failed"].server > 0
    # The service has counted what those that left never saw.
    tokens = counts["completion tokens"]
    assert "usage of" in tokens.note or tokens.client == tokens.server


async def test_the_ledger_to_the_token(open_site: Open, tmp_path: Path) -> None:
    """What is charged, by model, custom ID and account: also of callers that leave."""
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    store = Store(url)
    _, reads = await make_admin_key(store, "test")
    await store.close()
    site = await open_site(store_url=url, engine={"interval_s": 0.005})
    await site.router.prepare()
    at = f"http://127.0.0.1:{await site.listen()}"
    traffic = [
        {
            **STREAMED,
            "name": name,
            "models": {"echo": 1, "echo.pirate": 1},
            "accounts": [{"name": name}],
            "body": {"account_id": name},
            **more,
        }
        for name, more in (
            ("acme", {}),
            ("other", {"stream": False}),
            ("leaves", {"cancel": {"share": 1, "after_tokens": 2}}),
        )
    ]
    unknown = {
        **STREAMED,
        "name": "unknown",
        "models": {"no-such-model": 1},
        "accounts": [{"name": "other"}],
    }
    counts = await counted(
        at,
        KEY["x-api-key"],
        Scraper(()),
        *traffic,
        unknown,
        rate=60,
        ledger=Ledger(f"{at}/v4/usage", reads),
    )
    assert findings(counts) == {}
    assert all(name.startswith("ledger ") for name in counts)
    for name in ("echo", "echo.pirate", "acme", "other", "leaves"):
        assert counts[f"ledger requests {name}"].server > 0
        assert counts[f"ledger prompt tokens {name}"].server > 0
    assert counts["ledger requests cancelled"].client > 0
    tokens = counts["ledger completion tokens acme"]
    assert tokens.client == tokens.server == 12 * counts["ledger requests acme"].client


async def test_adapters_are_compared_in_total(site: Site) -> None:
    counts = await run(site, {**STREAMED, "models": {"echo": 1, "echo.pirate": 1}})
    assert findings(counts) == {}
    assert "echo.pirate" in counts["requests"].note


async def test_a_token_that_is_not_counted_is_found(site: Site) -> None:
    """The router counts one too few."""
    counter = site.metrics.completion_tokens.labels("echo")
    real, lost = counter.inc, [0]

    def inc(amount: float) -> None:
        lost[0] += 1
        real(amount - (lost[0] == 5))

    counter.inc = inc  # type: ignore[method-assign]
    site.metrics.completion_tokens.labels = lambda *_: counter  # type: ignore[method-assign]
    assert findings(await run(site, STREAMED)) == {"completion tokens": 1}


async def test_other_callers_are_found(site: Site) -> None:
    running = asyncio.create_task(run(site, STREAMED))
    async with site.wire() as other:
        await asyncio.sleep(0.4)
        for _ in range(3):
            body = {"model": "echo", "prompt": "one two three"}
            assert (await other.post("/v4/completions", json=body)).status_code == 200
        counts = await running
    assert findings(counts)["requests"] == 3
    assert "others have called" in counts["requests"].note
