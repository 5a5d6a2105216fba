"""What engines are told of where a request stands, by every way in."""

from __future__ import annotations

import pytest

from tests.gateway.conftest import Open

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
