"""Every request is counted once, with one outcome, whatever happens to it."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

from tests.conftest import Eventually
from tests.gateway.conftest import Open, Site

CANARY = "canary-prompt"
REQUESTS = 200


async def one(site: Site, number: int, rng: random.Random) -> None:
    """One request of some kind; about a third of the clients leave at some point."""
    bodies: list[dict[str, Any]] = [
        {},
        {"stream": True},
        {"model": "latest", "stream": True},
        {"model": "ecko"},
        {"model_parameters": {"temperature": CANARY}},
        {"account_id": 5},
        {"prompt": f"{CANARY} " * 2001},
    ]
    key = rng.choice(["sk-any"] * 9 + ["sk-canary-key"])
    body = {"prompt": f"{CANARY} {number} " * 10, **rng.choice(bodies[:3] * 3 + bodies)}
    patience = rng.choice((None, None, 0.0, rng.random() / 10))
    reader, writer = await site.send(key=key, **body)
    try:
        async with asyncio.timeout(patience):
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await (reader.readexactly(int(length)) if length else reader.readuntil(b"0\r\n\r\n"))
    except TimeoutError:
        assert patience is not None
    finally:
        writer.close()


async def test_a_storm_of_requests_and_departures(open_site: Open, eventually: Eventually) -> None:
    site = await open_site(replicas=2, engine={"interval_s": 0.002})
    rng = random.Random(11)
    async with asyncio.timeout(15):
        await asyncio.gather(
            *(one(site, number, random.Random(rng.random())) for number in range(REQUESTS))
        )
    await eventually(lambda: site.counted() >= REQUESTS)
    await eventually(lambda: site.idle, 2)
    assert site.counted() == REQUESTS
    by_outcome = {o: site.counted(outcome=o) for o in ("ok", "cancelled", "rejected", "error")}
    assert sum(by_outcome.values()) == REQUESTS
    assert by_outcome["error"] == 0
    assert min(by_outcome[o] for o in ("ok", "cancelled", "rejected")) > 10
    await eventually(lambda: site.fleet.pick("echo").busy == 0)

    text = site.log_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert sum(line["event"] == "request" for line in lines) == REQUESTS
    assert CANARY not in text
    assert "sk-" not in text


async def test_a_bug_is_counted_once_and_hides_its_cause(site: Site, monkeypatch: Any) -> None:
    def broken(*args: object) -> None:
        raise ValueError(CANARY)

    monkeypatch.setattr(site.fleet, "pick", broken)
    response = await site.complete()
    assert response.status_code == 500
    assert CANARY not in response.text
    assert response.json()["error"]["code"] == "internal_error"
    assert site.counted(outcome="error") == site.counted() == 1
    assert '"exc_info"' in site.log_text()
