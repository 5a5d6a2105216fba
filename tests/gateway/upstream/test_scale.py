"""Hosted models at the endpoints of Scale's own clients."""

from __future__ import annotations

import pytest

from tests.gateway.conftest import events
from tests.gateway.upstream.conftest import CANARY, DIALECTS, TEXT, World


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("vendor", [True, False])
async def test_v5_whole(world: World, dialect: str, vendor: bool) -> None:
    model = f"{dialect}/m-{dialect}" if vendor else f"m-{dialect}"
    message = {"role": "user", "content": CANARY}
    chat = await world.wire.post(
        "/v5/chat/completions", json={"model": model, "messages": [message]}
    )
    text = await world.wire.post("/v5/completions", json={"model": model, "prompt": CANARY})
    assert chat.json()["choices"][0]["message"]["content"] == TEXT
    assert text.json()["choices"][0]["text"] == TEXT
    assert chat.json()["model"] == text.json()["model"] == model
    for seen in world.doubles[dialect].requests:
        assert (seen.path, seen.body["model"]) == ("/v1/chat/completions", f"their-{dialect}")
        assert seen.body["messages"] == [message]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_v5_streams_end_without_a_mark(world: World, dialect: str) -> None:
    body = {"model": f"m-{dialect}", "prompt": CANARY, "stream": True}
    said = events((await world.wire.post("/v5/completions", json=body)).text)
    assert "".join(data["choices"][0]["text"] for _, data in said) == TEXT


async def test_v5_names_the_vendor(world: World) -> None:
    listed = (await world.wire.get("/v5/chat/completions/models?model_vendor=openai")).json()
    assert [(item["model_name"], item["model_vendor"]) for item in listed["items"]] == [
        ("m-openai", "openai"),
        ("old-one", "openai"),
    ]
    wrong = await world.wire.post("/v5/completions", json={"model": "openai/m-gemini"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (404, "unknown_model")
