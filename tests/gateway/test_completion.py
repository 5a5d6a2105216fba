"""Create Completion: what a client gets when all is well."""

from __future__ import annotations

import pytest

from tests.gateway.conftest import Open, Site, events

PATHS = ("/v4/completions", "/v2/completions")
REQUEST = {"model": "echo", "prompt": "one two three"}


@pytest.mark.parametrize("path", PATHS)
async def test_whole(site: Site, path: str) -> None:
    response = await site.client.post(path, json=REQUEST)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "completion": {
            "text": "one two three ",
            "finish_reason": "stop",
            "response_metadata": {"model": "echo"},
        },
        "token_usage": {"prompt": 3, "completion": 3, "total": 6},
    }
    assert site.counted(endpoint=path, outcome="ok", model="echo", kind="engine") == 1


@pytest.mark.parametrize("path", PATHS)
async def test_streamed(site: Site, path: str) -> None:
    response = await site.client.post(path, json={**REQUEST, "stream": True})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "content-length" not in response.headers
    assert "[DONE]" not in response.text
    frames = events(response.text)
    assert {name for name, _ in frames} == {""}
    *middle, last = [data for _, data in frames]
    assert "".join(data["completion"]["text"] for data in middle) == "one two three "
    for data in middle:
        assert data["token_usage"] is None
        assert data["completion"]["finish_reason"] is None
    assert last["completion"]["finish_reason"] == "stop"
    assert last["token_usage"] == {"prompt": 3, "completion": 3, "total": 6}


@pytest.mark.parametrize("stream", [False, True])
async def test_over_the_wire(site: Site, stream: bool) -> None:
    body = {**REQUEST, "prompt": "Grüße 🎉 \u2028x", "stream": stream}
    async with site.wire() as wire:
        response = await wire.post("/v4/completions", json=body)
    assert response.status_code == 200
    assert response.content.isascii()


@pytest.mark.parametrize("asked", ["echo.pirate", "latest"])
async def test_the_answer_names_the_model_that_answered(site: Site, asked: str) -> None:
    answer = (await site.complete("ahoy", model=asked)).json()
    assert answer["completion"]["text"] == "<echo.pirate>ahoy "
    assert answer["completion"]["response_metadata"] == {"model": "echo.pirate"}
    assert site.counted(model="echo", kind="adapter") == 1


async def test_the_parameters_reach_the_engine(site: Site) -> None:
    parameters = {"topP": 0.5, "top_k": 3, "max_tokens": 2, "temperature": 0}
    answer = (await site.complete(model_parameters=parameters)).json()
    assert answer["completion"]["finish_reason"] == "length"
    assert answer["token_usage"]["completion"] == 2
    sampling = site.engines[0].calls[0].sampling  # type: ignore[union-attr]
    assert (sampling.top_p, sampling.top_k, sampling.temperature) == (0.5, 3, 0.0)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_large_answer_arrives_whole(open_site: Open, stream: bool) -> None:
    site = await open_site(engine={"repeat": 30})
    word = "x" * 100_000
    body = {**REQUEST, "prompt": word, "stream": stream}
    async with site.wire() as wire:
        response = await wire.post("/v4/completions", json=body)
    assert response.status_code == 200
    assert response.text.count("x" * 100_000) == 30


async def test_requests_spread_over_replicas(open_site: Open) -> None:
    site = await open_site(replicas=2)
    for _ in range(40):
        assert (await site.complete()).status_code == 200
    assert all(len(engine.calls) >= 8 for engine in site.engines)


async def test_text_that_has_arrived_in_full_is_told_in_pieces(site: Site) -> None:
    response = await site.complete(stream=True)
    assert len(events(response.text)) == 4
