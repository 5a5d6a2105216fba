from __future__ import annotations

import pytest

from tests.gateway.conftest import Open, Site, events

PATHS = ("/v1/completions", "/v1/chat/completions")


@pytest.mark.parametrize("path", PATHS)
async def test_the_body_reaches_the_engine_untouched(site: Site, path: str) -> None:
    content = b'{"model": "latest",  "messages": [], "n": 1}'
    response = await site.client.post(
        path + "?a=b", content=content, headers={"cookie": "c", "traceparent": "t"}
    )
    assert response.status_code == 200
    assert response.json() == {"model": "latest", "bytes": len(content)}
    (call,) = site.engines[0].calls
    assert (call.path, call.query, call.model) == (path, "a=b", "latest")  # type: ignore[union-attr]
    assert call.adapter is not None
    assert call.adapter.id == "echo.pirate"
    names = {name for name, _ in call.headers}  # type: ignore[union-attr]
    assert "traceparent" in names
    assert not names & {"cookie", "x-api-key", "authorization", "host"}
    assert site.counted(endpoint=path, outcome="ok") == 1


async def test_a_body_as_large_as_two_images_reaches_the_engine(site: Site) -> None:
    url = "data:image/png;base64," + "A" * 14_000_000
    part = {"type": "image_url", "image_url": {"url": url}}
    body = {"model": "echo", "messages": [{"role": "user", "content": [part, part]}]}
    response = await site.client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200
    assert response.json()["bytes"] > 28_000_000


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_ends_in_done(site: Site, path: str) -> None:
    response = await site.client.post(path, json={"model": "echo", "stream": True})
    assert events(response.text)[-1] == ("", "[DONE]")


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{", 400, "invalid_request"),
        (b"{}", 422, "invalid_field"),
        (b'{"model": "ecko"}', 404, "unknown_model"),
        pytest.param(b'{"x": ' + b"[" * 100_000, 400, "invalid_request", id="deep"),
    ],
)
async def test_errors_in_openais_envelope(
    site: Site, content: bytes, status: int, code: str
) -> None:
    response = await site.client.post("/v1/chat/completions", content=content)
    assert response.status_code == status
    assert set(response.json()) == {"error"}
    assert response.json()["error"]["code"] == code
    assert response.headers["x-should-retry"] == "false"
    assert site.counted(endpoint="/v1/chat/completions", outcome="rejected") == 1


async def test_no_replica(open_site: Open) -> None:
    site = await open_site(replicas=0, hold_s=0)
    response = await site.client.post("/v1/completions", json={"model": "echo"})
    assert response.status_code == 503
    assert "retry-after" in response.headers
    assert set(response.json()) == {"error"}


async def test_models(site: Site) -> None:
    response = await site.client.get("/v1/models")
    entries = {entry["id"]: entry for entry in response.json()["data"]}
    assert list(entries) == ["echo", "echo.pirate", "latest"]
    assert entries["echo"]["parent"] is None
    assert entries["echo.pirate"]["parent"] == "echo"
    assert entries["latest"]["root"] == "echo.pirate"
    for name, entry in entries.items():
        assert entry["max_model_len"] == 2000
        assert (await site.client.get(f"/v1/models/{name}")).json() == entry


async def test_an_unknown_model(site: Site) -> None:
    response = await site.client.get("/v1/models/ecko")
    assert response.status_code == 404
    assert "'echo'" in response.json()["error"]["message"]
