"""Requests that are refused: their status, envelope and headers."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.gateway.conftest import Open, Site


def envelope(response: httpx.Response) -> dict[str, Any]:
    """The error in our envelope, checked against the response's headers."""
    body = response.json()
    error = body["error"]
    assert set(error) == {"type", "code", "message", "param", "request_id"}
    assert body["detail"] == error["message"]
    assert error["request_id"] == response.headers["x-request-id"]
    assert response.headers["content-type"] == "application/json"
    if response.status_code < 500:
        assert response.headers["x-should-retry"] == "false"
    return error  # type: ignore[no-any-return]


async def post(site: Site, content: bytes) -> httpx.Response:
    return await site.client.post("/v4/completions", content=content)


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"promt": 1}, 422, "invalid_field", "promt"),
        ({"model_parameters": {"top_k": 0}}, 422, "invalid_field", "model_parameters.top_k"),
        ({"model_parameters": {"max_tokens": 10**30}}, 422, "invalid_field", None),
        ({"prompt": None}, 422, "invalid_field", "prompt"),
        ({"images": [{"image_url": "https://x/y.png"}]}, 422, "invalid_field", "images"),
        ({"model_parameters": {"reasoning_effort": "low"}}, 422, "invalid_field", None),
        ({"model": "ecko"}, 404, "unknown_model", "model"),
        ({"prompt": "word " * 2000}, 400, "context_length_exceeded", "prompt"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_bad_request(
    site: Site, fields: dict[str, Any], status: int, code: str, param: str | None, stream: bool
) -> None:
    body = {"model": "echo", "prompt": "p", "stream": stream, **fields}
    response = await site.client.post("/v4/completions", json=body)
    error = envelope(response)
    assert (response.status_code, error["code"]) == (status, code)
    if param is not None:
        assert error["param"] == param
    assert site.counted(outcome="rejected") == site.counted() == 1
    assert (await site.complete()).status_code == 200


async def test_an_unknown_model_is_told_the_closest(site: Site) -> None:
    assert "'echo'" in envelope(await site.complete(model="ecko"))["message"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"model": "echo", "prompt": "SECRET\xff"}',
        pytest.param(b"[" * 100_000, id="deep"),
    ],
)
async def test_what_is_no_json_object(site: Site, content: bytes) -> None:
    response = await post(site, content)
    assert response.status_code == 400
    assert "SECRET" not in envelope(response)["message"]


async def test_a_body_above_the_limit(site: Site) -> None:
    response = await post(site, b'{"prompt": "' + b"x" * site.settings.max_body_bytes + b'"}')
    assert response.status_code == 413
    assert envelope(response)["code"] == "body_too_large"
    assert response.headers["connection"] == "close"


@pytest.mark.parametrize("path", ["/", "/v4/completion", "/v4/completions/x", "/v1/unknown"])
async def test_an_unknown_path(site: Site, path: str) -> None:
    response = await site.client.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"
    if not path.startswith("/v1/"):
        envelope(response)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v4/completions", "POST"),
        ("POST", "/health", "GET, HEAD"),
        ("PUT", "/v1/models", "GET, HEAD"),
    ],
)
async def test_a_wrong_method(site: Site, method: str, path: str, allow: str) -> None:
    response = await site.client.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == allow


async def test_no_replica(open_site: Open) -> None:
    site = await open_site(replicas=0, hold_s=0)
    response = await site.complete()
    assert response.status_code == 503
    assert envelope(response)["code"] == "model_unavailable"
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert "x-should-retry" not in response.headers
    assert site.counted(outcome="rejected") == site.counted() == 1


# keys and accounts


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-api-key": "sk-any"}, 200),
        ({"authorization": "Bearer sk-any"}, 200),
        ({}, 401),
        ({"x-api-key": "sk-wrong"}, 401),
        ({"authorization": "Bearer sk-wrong"}, 401),
    ],
)
@pytest.mark.parametrize("path", ["/v4/completions", "/v1/completions"])
async def test_keys(site: Site, headers: dict[str, str], status: int, path: str) -> None:
    del site.client.headers["x-api-key"]
    body = {"model": "echo", "prompt": "p"}
    response = await site.client.post(path, json=body, headers=headers)
    assert response.status_code == status
    if status == 401:
        assert response.json()["error"]["code"] == "unauthenticated"
        assert "sk-" not in response.text


async def test_a_stranger_learns_nothing_about_models(site: Site) -> None:
    response = await site.client.post(
        "/v4/completions", json={"model": "nope"}, headers={"x-api-key": "no"}
    )
    assert response.status_code == 401


@pytest.mark.parametrize(
    ("key", "header", "body", "status"),
    [
        ("sk-any", "a", "b", 400),
        ("sk-any", "a", "a", 200),
        ("sk-acme", "other", None, 403),
        ("sk-acme", None, "other", 403),
        ("sk-acme", "acme", "acme", 200),
    ],
)
async def test_accounts(
    site: Site, key: str, header: str | None, body: str | None, status: int
) -> None:
    headers = {"x-api-key": key} | ({"x-selected-account-id": header} if header else {})
    response = await site.client.post(
        "/v4/completions",
        json={"model": "echo", "prompt": "p", "account_id": body},
        headers=headers,
    )
    assert response.status_code == status
    if status != 200:
        assert envelope(response)["param"] == "account_id"


@pytest.mark.parametrize(
    ("policy", "status", "warned"), [("off", 200, 0), ("warn", 200, 1), ("enforce", 400, 0)]
)
async def test_account_policy(open_site: Open, policy: str, status: int, warned: int) -> None:
    site = await open_site(account_policy=policy)
    response = await site.complete()
    assert response.status_code == status
    assert ("x-account-warning" in response.headers) == bool(warned)
    count = site.metrics.registry.get_sample_value("serving_requests_without_account_total")
    assert count == warned
    named = await site.complete(account_id="acme")
    assert named.status_code == 200
    assert "x-account-warning" not in named.headers


# request IDs


async def test_the_callers_request_id_comes_back(site: Site) -> None:
    for path, status in (("/health", 200), ("/nowhere", 404)):
        response = await site.client.get(path, headers={"x-request-id": "mine-1"})
        assert (response.status_code, response.headers["x-request-id"]) == (status, "mine-1")
    response = await site.client.post(
        "/v4/completions", content=b"{", headers={"x-request-id": "mine-2"}
    )
    assert envelope(response)["request_id"] == "mine-2"
    assert '"request_id": "mine-2"' in site.log_text()


@pytest.mark.parametrize("hostile", [b"x" * 129, b"caf\xc3\xa9", b"two words", b""])
async def test_a_hostile_request_id_is_replaced(site: Site, hostile: bytes) -> None:
    async with site.wire() as wire:
        response = await wire.post(
            "/v4/completions",
            content=json.dumps({"model": "echo", "prompt": "p"}),
            headers=[(b"x-request-id", hostile)],
        )
    assert response.status_code == 200
    assert len(response.headers.get_list("x-request-id")) == 1
    assert len(response.headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "endpoint"),
    [
        ("POST", "/v9/completions", {}, 404, "other"),
        ("GET", "/v4/completions", {}, 405, "/v4/completions"),
        ("POST", "/v4/completions", {"x-bomb": "x" * 20_000}, 431, "/v4/completions"),
    ],
)
async def test_what_never_reaches_a_handler_is_counted_too(
    site: Site, method: str, path: str, headers: dict[str, str], status: int, endpoint: str
) -> None:
    response = await site.client.request(method, path, headers=headers)
    assert response.status_code == status
    assert site.counted(outcome="rejected", endpoint=endpoint) == site.counted() == 1


def request_line(site: Site) -> str:
    """The one line that the log has of a request."""
    lines = [
        line for line in site.log_text().splitlines() if json.loads(line)["event"] == "request"
    ]
    (line,) = lines
    return line


LONG = "x" * 7000
NASTY = "a%0Ab%1B%5B31mc%E2%80%A8d"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/{LONG}", 404),
        ("GET", f"/v1/{LONG}", 404),
        ("GET", f"/v1/models/{LONG}", 404),
        ("GET", f"/v4/models/{LONG}", 404),
        ("DELETE", f"/v4/models/{LONG}", 405),
        ("GET", f"/{NASTY}", 404),
        ("GET", f"/v1/models/{NASTY}", 404),
        ("PUT", f"/v4/models/{NASTY}", 405),
        ("GET", f"/v4/models?sort_by={LONG}", 422),
        ("GET", f"/v4/models?limit={LONG}", 422),
    ],
    ids=range(10),
)
async def test_no_answer_repeats_much_of_a_path(
    site: Site, method: str, path: str, status: int
) -> None:
    answer = await site.client.request(method, path)
    assert answer.status_code == status
    assert len(answer.content) < 1000
    message = answer.json()["error"]["message"]
    assert message.isprintable()
    labels = {
        sample.labels["endpoint"]
        for family in site.metrics.requests.collect()
        for sample in family.samples
    }
    assert all(len(label) < 30 for label in labels)
    assert len(request_line(site)) < 1000


@pytest.mark.parametrize("path", ["/v4/completions", "/v1/completions", "/v1/embeddings"])
@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"model": LONG}, {}),
        ({"model": "m" * 256}, {}),
        ({"model": "a\nb\x1b[31m\u2028"}, {}),
        ({"model": "echo", LONG: 1}, {}),
        ({"model": "echo", "model_parameters": {LONG: 1}}, {}),
        ({"model": "echo", "a\nb": 1}, {}),
        ({"model": "echo", "account_id": LONG}, {}),
        ({"model": "echo", "account_id": "a\nb" * 80}, {"x-selected-account-id": "c"}),
        ({"model": "echo"}, {"x-selected-account-id": LONG}),
        ({"model": "echo"}, {"x-selected-account-id": "other", "x-api-key": "sk-acme"}),
        ({"model": "echo"}, {"x-api-key": LONG}),
        ({"model": "echo"}, {"x-request-id": LONG}),
    ],
    ids=range(12),
)
async def test_no_answer_repeats_much_of_a_request(
    site: Site, path: str, fields: dict[str, Any], headers: dict[str, str]
) -> None:
    body = {"prompt": "one", **fields}
    answer = await site.client.post(path, json=body, headers=headers)
    assert len(answer.content) < 1000
    assert "x" * 101 not in answer.text
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert error["message"].isprintable()
        assert (error["param"] or "").isprintable()
    assert len(request_line(site)) < 1500
