"""What clients do that is no endpoint of its own: Azure's paths, slashes, HEAD, other origins."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import openai
import pytest
from backports import zstd
from pydantic import ValidationError

from serving.api.endpoints import ENDPOINTS, NAME
from serving.settings import Settings
from serving.wire.messages import HttpCall
from tests.asking import ASKED
from tests.gateway.asking import NamingEngine, serve
from tests.gateway.conftest import Open, Site

BODY = {"model": "latest", "messages": []}
PREFLIGHT = {
    "origin": "https://page.example",
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization, content-type",
}
# What a page may read without being told (fetch.spec.whatwg.org), and what is for browsers.
SAFE = {"content-type", "content-length"}
SAFE |= {"access-control-allow-origin", "access-control-expose-headers"}


# Azure


@pytest.mark.parametrize("model", ["echo", "latest"])
@pytest.mark.parametrize("path", ["completions", "chat/completions"])
async def test_a_model_named_in_the_path(site: Site, model: str, path: str) -> None:
    url = f"/openai/deployments/{model}/{path}"
    response = await site.client.post(url + "?api-version=2024-10-21", json={"messages": []})
    assert response.status_code == 200
    assert response.json()["model"] == model
    (call,) = site.engines[0].calls
    assert (call.path, call.model) == ("/v1/" + path, model)  # type: ignore[union-attr]
    counted = "/openai/deployments/{model}/" + path
    assert site.counted(endpoint=counted, outcome="ok") == 1


@pytest.mark.parametrize(
    ("content", "relayed"),
    [
        (b"{}", b'{"model": "echo"}'),
        (b' \n{ "n": 1}', b'{"model": "echo",  "n": 1}'),
        (b'{"model":null}', None),
        (b'{"model": "echo"}', b'{"model": "echo"}'),
    ],
)
async def test_the_engine_finds_the_model_in_the_body(
    site: Site, content: bytes, relayed: bytes | None
) -> None:
    response = await site.client.post("/openai/deployments/echo/chat/completions", content=content)
    assert response.status_code == (200 if relayed else 422)
    if relayed:
        assert json.loads(relayed)["model"] == "echo"
        assert response.json()["bytes"] == len(relayed)


@pytest.mark.parametrize(
    ("url", "content", "status"),
    [
        ("/openai/deployments/echo/chat/completions", b'{"model": "latest"}', 422),
        ("/openai/deployments/echo/chat/completions", b"[]", 400),
        ("/openai/deployments/ecko/chat/completions", b"{}", 404),
        ("/openai/deployments/" + "m" * 300 + "/chat/completions", b"{}", 422),
        ("/openai/deployments//chat/completions", b"{}", 404),
        ("/openai/deployments/echo/images", b"{}", 404),
    ],
)
async def test_mistakes_in_azures_way(site: Site, url: str, content: bytes, status: int) -> None:
    response = await site.client.post(url, content=content)
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}


async def test_azures_client_unmodified(site: Site) -> None:
    port = await site.listen()
    async with openai.AsyncAzureOpenAI(
        azure_endpoint=f"http://127.0.0.1:{port}", api_key="sk-any", api_version="2024-10-21"
    ) as client:
        answer = await client.with_raw_response.chat.completions.create(
            model="latest", messages=[{"role": "user", "content": "a"}]
        )
        assert json.loads(answer.content)["model"] == "latest"
        assert {"echo", "latest"} < {model.id async for model in client.models.list()}
        assert (await client.models.retrieve("echo.pirate")).id == "echo.pirate"
    async with openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{port}/openai/v1/", api_key="sk-any"
    ) as client:
        assert [model.id async for model in client.models.list()]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"api-key": "sk-any"}, 200),
        ({"api-key": "sk-wrong"}, 401),
        ({"api-key": ""}, 401),
        ({"api-key": "sk-wrong", "x-api-key": "sk-any"}, 200),
        ({"api-key": "sk-any", "authorization": "Bearer sk-wrong"}, 200),
    ],
)
async def test_azures_header(site: Site, headers: dict[str, str], status: int) -> None:
    transport = httpx.ASGITransport(site.router.pipeline)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        response = await client.post("/v1/chat/completions", json=BODY, headers=headers)
    assert response.status_code == status


# compressed bodies


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v4/completions"])
@pytest.mark.parametrize(("name", "compress"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
async def test_a_compressed_body(
    site: Site, path: str, name: str, compress: Callable[[bytes], bytes]
) -> None:
    fields = {"prompt": "one two"} if "v4" in path else {"messages": []}
    body = json.dumps({"model": "echo", **fields}).encode()
    plain, packed = [
        await site.client.post(path, content=content, headers={"content-encoding": coding})
        for content, coding in ((body, "identity"), (compress(body), name))
    ]
    assert plain.status_code == packed.status_code == 200
    assert plain.json().keys() == packed.json().keys()
    first, second = site.engines[0].calls
    if isinstance(first, HttpCall):
        assert isinstance(second, HttpCall)
        assert first.headers == second.headers
        assert plain.json()["bytes"] == packed.json()["bytes"] == len(body)


@pytest.mark.parametrize(
    ("content", "coding", "status", "code"),
    [
        (b"{}", "br", 415, "unsupported_encoding"),
        (b"{}", "gzip", 400, "invalid_request"),
        (gzip.compress(bytes(70_000)), "gzip", 413, "body_too_large"),
    ],
)
async def test_a_compressed_body_that_is_refused(
    open_site: Open, content: bytes, coding: str, status: int, code: str
) -> None:
    site = await open_site(max_body_bytes=65_536)
    headers = {"content-encoding": coding}
    response = await site.client.post("/v1/completions", content=content, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert site.counted(endpoint="/v1/completions", outcome="rejected") == 1


@pytest.mark.parametrize("first", ["gzip", "identity"])
async def test_codings_in_two_headers_are_two_codings(site: Site, first: str) -> None:
    body = gzip.compress(json.dumps(BODY).encode())
    headers = [("content-encoding", first), ("content-encoding", "gzip")]
    response = await site.client.post("/v1/completions", content=body, headers=headers)
    assert response.status_code == 415
    assert f"'{first}, gzip' is not decoded here" in response.json()["error"]["message"]


# paths and methods


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_slash_at_the_end(site: Site, path: str) -> None:
    response = await site.client.post(path + "/", json=BODY)
    assert response.status_code == 200
    (call,) = site.engines[0].calls
    assert call.path == path  # type: ignore[union-attr]
    assert site.counted(endpoint=path, outcome="ok") == 1


async def test_pages_with_a_slash_at_the_end(site: Site) -> None:
    for path in ("/v1/models", "/v1/models/echo", "/v4/models/latest", "/health", "/ping"):
        plain, slashed = [await site.client.get(path + end) for end in ("", "/")]
        assert plain.status_code == slashed.status_code == 200
        assert plain.json() == slashed.json()
    assert (await site.client.get("/")).status_code == 404


async def test_every_endpoint_may_have_a_slash_at_its_end(open_site: Open) -> None:
    site = await open_site(double=NamingEngine)
    for asking in ASKED:
        await serve(site, asking.task)
        path, _, query = asking.path("echo").partition("?")
        answer = await site.client.post(f"{path}/?{query}", **asking.sent("echo"))
        assert answer.status_code == 200, path
        assert site.counted(endpoint=asking.endpoint.path, outcome="ok") == 1


async def test_every_page_has_a_head_and_may_have_a_slash(site: Site) -> None:
    for endpoint in ENDPOINTS:
        if endpoint.method != "GET":
            continue
        path = endpoint.path.replace(NAME, "echo")
        whole, slashed = await site.client.get(path), await site.client.get(path + "/")
        head = await site.client.head(path + "/")
        assert whole.status_code == slashed.status_code == head.status_code, path
        # Metrics say more each time, and other answers have another ID in them each time.
        if path != "/metrics":
            assert len(whole.content) == int(head.headers["content-length"]), path
        assert head.headers["content-type"] == whole.headers["content-type"]
        assert site.counted(endpoint=endpoint.path) == 3, path


async def test_every_path_answers_a_preflight(open_site: Open) -> None:
    site = await open_site(cors_origins=PREFLIGHT["origin"])
    del site.client.headers["x-api-key"]
    for endpoint in ENDPOINTS:
        path = endpoint.path.replace(NAME, "echo")
        asked = await site.client.options(path + "/", headers=PREFLIGHT)
        assert asked.status_code == 204, path
        assert endpoint.method in asked.headers["access-control-allow-methods"].split(", ")


async def test_the_head_of_a_page(site: Site) -> None:
    port = await site.listen()
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", headers={"x-api-key": "sk-any"}
    ) as client:
        for path in ("/v1/models", "/health", "/version"):
            whole, head = await client.get(path), await client.head(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == whole.headers["content-length"]
        refused = await client.head("/v1/completions")
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
        refused = await client.post("/v1/models")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


# other origins


@pytest.mark.parametrize(
    ("listed", "allowed"),
    [
        ("https://page.example", "https://page.example"),
        ("http://a.example:8080, https://page.example", "https://page.example"),
        ("*", "*"),
        ("HTTPS://PAGE.example", "https://page.example"),
        ("", None),
        ("https://other.example", None),
        ("http://page.example", None),
        ("https://page.example:8443", None),
    ],
)
async def test_origins(open_site: Open, listed: str, allowed: str | None) -> None:
    site = await open_site(cors_origins=listed)
    asked = await site.client.options("/v1/chat/completions", headers=PREFLIGHT)
    assert asked.headers.get("access-control-allow-origin") == allowed
    if allowed is None:
        assert asked.status_code == 405
    else:
        assert (asked.status_code, asked.content) == (204, b"")
        assert asked.headers["access-control-allow-methods"] == "POST"
        assert asked.headers["access-control-allow-headers"] == "authorization, content-type"
    origin = {"origin": PREFLIGHT["origin"]}
    done = await site.client.post("/v1/chat/completions", json=BODY, headers=origin)
    bad = await site.client.post("/v1/chat/completions", content=b"{", headers=origin)
    for response in (asked, done, bad):
        assert response.headers.get("access-control-allow-origin") == allowed
        # A cache between must keep the answers of different origins apart.
        assert ("origin" in response.headers.get("vary", "")) == (listed not in ("", "*"))
    if allowed:
        assert "x-request-id" in done.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in done.headers


async def test_a_page_may_read_every_header_that_is_ours(open_site: Open, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("sk-one:acme requests_per_minute=1 tokens_per_minute=99")
    site = await open_site(cors_origins="*", api_keys_file=str(keys), account_policy="warn")
    seen: set[str] = set()
    for path, body in (("/v1/messages", BODY), ("/v4/completions", {"model": "latest"})):
        asked = {"x-api-key": "sk-one", "origin": PREFLIGHT["origin"]}
        answer = await site.client.post(path, json=body, headers=asked)
        seen |= answer.headers.keys() - SAFE
        exposed = set(answer.headers["access-control-expose-headers"].split(", "))
    assert {"request-id", "retry-after", "x-ratelimit-remaining-requests"} <= seen <= exposed


async def test_a_preflight_needs_no_key_and_finds_no_path_that_is_not_there(
    open_site: Open,
) -> None:
    site = await open_site(cors_origins="*")
    transport = httpx.ASGITransport(site.router.pipeline)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        assert (await client.options("/v1/models", headers=PREFLIGHT)).status_code == 204
        assert (await client.options("/v1/none", headers=PREFLIGHT)).status_code == 404
        plain = await client.options("/v1/models")
        assert (plain.status_code, plain.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("origin", ["page.example", "https://page.example/", "https://a b", "null"])
def test_what_is_no_origin_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(ValidationError, match="is no origin"):
        Settings(cors_origins=origin)
