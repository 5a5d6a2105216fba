"""The endpoints of scale-gp-beta: OpenAI's bodies and answers, errors and streams as `/v4`."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.conftest import Eventually
from tests.gateway.conftest import Open, Site, events
from tests.gateway.test_refusals import envelope

PATHS = ("/v5/completions", "/v5/chat/completions")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("model", "adapter"),
    [
        ("echo", None),
        ("echo.pirate", "echo.pirate"),
        ("latest", "echo.pirate"),
        ("llmengine/echo", None),
        ("launch/latest", "echo.pirate"),
    ],
)
async def test_the_body_reaches_the_engine_s_own_endpoint(
    site: Site, path: str, model: str, adapter: str | None
) -> None:
    content = json.dumps({"model": model, "messages": [], "n": 1}).encode()
    response = await site.client.post(path + "?a=b", content=content)
    assert response.status_code == 200
    assert response.json() == {"model": model, "bytes": len(content)}
    (call,) = site.engines[0].calls
    assert call.path == path.replace("/v5", "/v1")  # type: ignore[union-attr]
    assert (call.adapter.id if call.adapter else None) == adapter
    assert site.counted(endpoint=path, outcome="ok") == 1


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_ends_without_a_mark(site: Site, path: str) -> None:
    response = await site.client.post(path, json={"model": "echo", "stream": True})
    assert [data["choices"][0]["text"] for _, data in events(response.text)] == ["one", "two"]
    marked = await site.client.post(path.replace("/v5", "/v1"), json={"model": "echo", "stream": 1})
    assert marked.status_code == 422  # `stream` is no bool
    assert site.idle


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{", 400, "invalid_request"),
        (b"[]", 400, "invalid_request"),
        (b"{}", 422, "invalid_field"),
        (b'{"model": 1}', 422, "invalid_field"),
        (b'{"model": "ecko"}', 404, "unknown_model"),
        (b'{"model": "openai/echo"}', 404, "unknown_model"),
        (b'{"model": "llmengine/"}', 404, "unknown_model"),
    ],
)
async def test_errors_in_our_envelope(
    site: Site, path: str, content: bytes, status: int, code: str
) -> None:
    response = await site.client.post(path, content=content)
    assert response.status_code == status
    assert envelope(response)["code"] == code
    assert site.counted(endpoint=path, outcome="rejected") == 1


async def test_a_failure_inside_a_stream_is_an_error_event(
    open_site: Open, eventually: Eventually
) -> None:
    site = await open_site(engine={"interval_s": 0.1})
    body = {"model": "echo", "stream": True}
    async with (
        site.wire() as client,
        client.stream("POST", "/v5/chat/completions", json=body) as response,
    ):
        lines = response.aiter_lines()
        assert (await anext(lines)).startswith("data: ")
        site.engines[0].dead = True
        text = "\n".join([line async for line in lines])
    assert "event: error\n" in text
    assert "[DONE]" not in text
    assert json.loads(text.rsplit("data: ", 1)[1])["error"]["code"] == "engine_failed"
    await eventually(lambda: site.idle)


async def test_a_client_that_leaves_is_cancelled(open_site: Open, eventually: Eventually) -> None:
    site = await open_site(engine={"interval_s": 5})
    asking = asyncio.create_task(
        site.client.post("/v5/completions", json={"model": "echo", "stream": True})
    )
    await eventually(lambda: site.running == 1)
    asking.cancel()
    await eventually(lambda: site.idle)
    assert site.counted(endpoint="/v5/completions", outcome="cancelled") == 1


async def test_no_replica(open_site: Open) -> None:
    site = await open_site(replicas=0, hold_s=0)
    response = await site.client.post("/v5/completions", json={"model": "echo"})
    assert response.status_code == 503
    assert "retry-after" in response.headers
    assert envelope(response)["code"] == "model_unavailable"
    (first, *_) = (await site.client.get("/v5/models")).json()["items"]
    assert (first["status"], first["model_availability"]) == ("deploying", "unavailable")


async def test_models(site: Site) -> None:
    listed = (await site.client.get("/v5/models")).json()
    assert (listed["object"], listed["has_more"]) == ("list", False)
    assert [item["id"] for item in listed["items"]] == ["echo", "echo.pirate", "latest"]
    for item in listed["items"]:
        assert (item["status"], item["model_vendor"]) == ("ready", "llmengine")
        assert (await site.client.get(f"/v5/models/{item['id']}")).json() == item
    missing = await site.client.get("/v5/models/ecko")
    assert (missing.status_code, envelope(missing)["code"]) == (404, "unknown_model")
    bad = await site.client.get("/v5/models?limit=x")
    assert (bad.status_code, envelope(bad)["param"]) == (422, "limit")
    assert (await site.client.get("/v5/chat/completions/models")).json()["items"] == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v5/models"), ("PATCH", "/v5/models/echo"), ("DELETE", "/v5/models/echo")],
)
async def test_models_are_not_managed_here(site: Site, method: str, path: str) -> None:
    response = await site.client.request(method, path, json={"model": {"name": "mine"}})
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD"
    assert envelope(response)["code"] == "method_not_allowed"
