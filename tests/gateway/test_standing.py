"""What engines are told of where a request stands, by every way in."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.gateway.conftest import Open
from tests.gateway.test_keys import keyed

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "a"}]}
PROMPT = {"model": "echo", "prompt": "a"}


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v4/completions", PROMPT), ("/v1/completions", PROMPT), ("/v1/chat/completions", CHAT)],
)
async def test_calls_say_whose_turn_they_take(
    open_site: Open, path: str, body: dict[str, object]
) -> None:
    site = await open_site(account_weights="acme=4")
    found = []
    for key, headers in (
        ("sk-any", {}),
        ("sk-acme", {}),
        ("sk-any", {"x-selected-account-id": "acme", "x-priority": "batch"}),
    ):
        sent = {"x-api-key": key, **headers}
        response = await site.client.post(path, json=body, headers=sent)
        assert response.status_code == 200, response.text
        found.append(site.engines[0].calls[-1].standing)
    assert [(each.weight, each.batch) for each in found] == [(1, False), (4, False), (4, True)]
    assert found[0].owner != found[1].owner == found[2].owner
    refused = await site.client.post(path, json=body, headers={"x-priority": "urgent"})
    assert refused.status_code == 400
    assert "x-priority" in refused.text


async def test_a_weight_of_the_store_reaches_engines_from_every_router(
    open_site: Open, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    one, other = await keyed(open_site, url), await keyed(open_site, url)
    made = await one.admin("POST", "/accounts", {"id": "acme", "weight": 4})
    assert made["weight"] == 4
    _, key = await one.make(account_id="acme")
    for weight in (4, 0.5, None):
        changed = await one.admin("PATCH", "/accounts/acme", {"weight": weight})
        assert changed["weight"] == weight
        began = time.monotonic()
        for at in (one, other):
            while True:
                answer = await at.complete(key)
                if answer.status_code == 200:
                    told = at.site.engines[0].calls[-1].standing.weight
                    if told == (weight or 1):
                        break
                assert time.monotonic() - began < 2
                await asyncio.sleep(0.01)
    for wrong in (0, -1, 1e9, "4"):
        answer = await one.send(
            one.admin_key, "PATCH", "/v4/admin/accounts/acme", {"weight": wrong}
        )
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "weight")
