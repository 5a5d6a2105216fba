"""Keys of a store, through routers: what they let pass, how they are refused, and how soon."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from serving.accounts import ring
from serving.accounts.bootstrap import make_admin_key
from serving.api.endpoints import ENDPOINTS, NAME, Managed
from serving.api.openapi.document import JSON, document
from serving.store.engine import Store
from tests.gateway.conftest import Open, Site

DOCUMENT = document(ENDPOINTS)
COMPLETION = {"model": "echo", "prompt": "one two"}
CHAT = {"model": "echo", "messages": [{"role": "user", "content": "one two"}]}
LLM = {"prompt": "x", "max_new_tokens": 5}
MESSAGE = {**CHAT, "max_tokens": 5}


class Keyed:
    """A router with a store, as an administrator uses it."""

    def __init__(self, site: Site, admin_key: str) -> None:
        self.site, self.admin_key = site, admin_key

    async def send(self, key: str, method: str, path: str, body: Any = None) -> httpx.Response:
        headers = {"x-api-key": key}
        return await self.site.client.request(method, path, json=body, headers=headers)

    async def admin(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        response = await self.send(self.admin_key, method, f"/v4/admin{path}", body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def make(self, **fields: Any) -> tuple[str, str]:
        """The ID and the text of a new key."""
        made = await self.admin("POST", "/keys", fields)
        return made["id"], made["key"]

    async def complete(self, key: str, **more: Any) -> httpx.Response:
        return await self.send(key, "POST", "/v4/completions", {**COMPLETION, **more})


async def keyed(open_site: Open, url: str, **settings: Any) -> Keyed:
    store = Store(url)
    _, text = await make_admin_key(store, "test")
    await store.close()
    site = await open_site(store_url=url, **settings)
    await site.router.prepare()
    return Keyed(site, text)


@pytest.fixture
async def at(open_site: Open, tmp_path: Path) -> Keyed:
    """A router with SQLite."""
    return await keyed(open_site, f"sqlite:///{tmp_path}/store.sqlite3")


async def test_a_key_is_made_used_rotated_and_revoked(at: Keyed) -> None:
    await at.admin("POST", "/accounts", {"id": "acme"})
    key_id, old = await at.make(name="a", account_id="acme")
    assert (await at.complete(old)).status_code == 200
    assert f'"key": "{key_id}"' in at.site.log_text()

    rotated = await at.admin("POST", f"/keys/{key_id}/rotate", {"overlap_s": 3600})
    new = rotated["key"]
    assert rotated["id"] == key_id
    assert new != old
    assert new.startswith(f"{key_id}_")
    assert [bool(secret["expires_at"]) for secret in rotated["secrets"]] == [True, False]
    for key in (old, new):
        assert (await at.complete(key)).status_code == 200
    third = (await at.admin("POST", f"/keys/{key_id}/rotate", {"overlap_s": 0}))["key"]
    refused = await at.complete(new)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "key_expired")

    revoked = await at.admin("POST", f"/keys/{key_id}/revoke")
    assert revoked["state"] == "revoked"
    refused = await at.complete(third)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "key_revoked")
    shown = await at.admin("GET", f"/keys/{key_id}")
    assert "key" not in shown
    rotated_again = await at.send(at.admin_key, "POST", f"/v4/admin/keys/{key_id}/rotate", {})
    assert rotated_again.status_code == 409


async def test_a_key_ends_by_the_clock(at: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = datetime.now(UTC) + timedelta(hours=1)
    key_id, key = await at.make(expires_at=ends.isoformat())
    assert (await at.complete(key)).status_code == 200

    class Later:
        @staticmethod
        def time() -> float:
            return ends.timestamp() + 1

    monkeypatch.setattr(ring, "time", Later)
    assert (await at.complete(key)).json()["error"]["code"] == "key_expired"
    await at.admin("PATCH", f"/keys/{key_id}", {"expires_at": None})
    assert (await at.complete(key)).status_code == 200


async def test_revoked_everywhere_within_two_seconds(open_site: Open, store_url: str) -> None:
    one = await keyed(open_site, store_url)
    other = await keyed(open_site, store_url)
    for _ in range(3):
        key_id, key = await one.make()
        assert (await one.complete(key)).status_code == 200
        started = time.monotonic()
        while (await other.complete(key)).status_code != 200:
            assert time.monotonic() - started < 2
            await asyncio.sleep(0.01)
        started = time.monotonic()
        await one.admin("POST", f"/keys/{key_id}/revoke")
        assert (await one.complete(key)).status_code == 401
        while (await other.complete(key)).status_code == 200:
            assert time.monotonic() - started < 2
            await asyncio.sleep(0.01)
        assert (await other.complete(key)).json()["error"]["code"] == "key_revoked"


async def test_models(at: Keyed) -> None:
    _, key = await at.make(models=["echo.*"])
    assert (await at.complete(key, model="echo.pirate")).status_code == 200
    # An alias of a model that the key may use, and one that is named itself.
    assert (await at.complete(key, model="latest")).status_code == 200
    for model in ("echo", "nothing", "echo-pirate", "gpt-4o", "gpt-4"):
        refused = await at.complete(key, model=model)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["param"]) == (403, "forbidden", "model")
        assert error["message"] == f"this API key may not use model '{model}'"
    near = await at.complete(key, model="echo.pirat")
    assert near.status_code == 404
    assert "'echo'" not in near.text
    assert "'echo.pirate'" in near.text


@pytest.mark.parametrize(
    ("path", "ids"),
    [
        ("/v1/models", lambda body: [each["id"] for each in body["data"]]),
        ("/v1/models?all=true", lambda body: [each["id"] for each in body["data"]]),
        ("/v4/models", lambda body: [each["id"] for each in body["items"]]),
        ("/v4/model-deployments", lambda body: [each["id"] for each in body["items"]]),
        ("/v5/models", lambda body: [each["id"] for each in body["items"]]),
        ("/v1/llm/model-endpoints", lambda b: [each["name"] for each in b["model_endpoints"]]),
        ("/status", lambda body: [each["id"] for each in body["models"]]),
    ],
)
async def test_lists_show_what_a_key_may_use(at: Keyed, path: str, ids: Any) -> None:
    _, limited = await at.make(models=["echo.pirate"])
    _, free = await at.make()
    assert ids((await at.send(limited, "GET", path)).json()) == ["echo.pirate", "latest"]
    assert "echo" in ids((await at.send(free, "GET", path)).json())


async def test_what_names_all_models_is_not_for_keys_with_some(at: Keyed) -> None:
    _, key = await at.make(models=["echo.pirate"])
    for path in ("/v1/models/echo", "/v4/models/echo", "/v1/models/none", "/metrics/targets"):
        assert (await at.send(key, "GET", path)).status_code == 403, path
    assert (await at.send(key, "GET", "/v1/models/echo.pirate")).status_code == 200


async def test_endpoints_and_roles(at: Keyed) -> None:
    _, chats = await at.make(endpoints=["/v1/chat/*"])
    assert (await at.send(chats, "POST", "/v1/chat/completions", CHAT)).status_code == 200
    refused = await at.complete(chats)
    assert refused.status_code == 403
    assert "/v4/completions" in refused.json()["detail"]
    _, reader = await at.make(role="read")
    assert (await at.send(reader, "GET", "/v1/models")).status_code == 200
    assert (await at.complete(reader)).status_code == 403
    _, user = await at.make()
    for key in (reader, user):
        for endpoint in ENDPOINTS:
            if isinstance(endpoint.answer, Managed):
                path = endpoint.path.replace(NAME, "x")
                refused = await at.send(key, endpoint.method, path, {})
                assert refused.status_code == 403
                assert "'admin'" in refused.json()["detail"]


async def test_networks(open_site: Open, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    at = await keyed(open_site, url, trusted_proxies="127.0.0.1")
    _, key = await at.make(networks=["10.0.0.0/8"])

    async def status(*forwarded: str) -> int:
        headers = [("x-api-key", key), *(("x-forwarded-for", each) for each in forwarded)]
        send = at.site.client.post("/v4/completions", json=COMPLETION, headers=headers)
        return (await send).status_code

    assert await status() == 403
    assert await status("10.1.2.3") == 200
    assert await status("10.1.2.3, 8.8.8.8") == 403
    assert await status("10.1.2.3", "8.8.8.8") == 403


@pytest.mark.parametrize(
    ("path", "body", "read"),
    [
        ("/v4/completions", COMPLETION, lambda b: (b["error"]["type"], b["detail"])),
        ("/v1/chat/completions", CHAT, lambda b: (b["error"]["type"], b["error"]["message"])),
        ("/v1/messages", MESSAGE, lambda b: (b["error"]["type"], b["error"]["message"])),
        ("/v1/llm/completions-sync?model_endpoint_name=echo", LLM, None),
    ],
)
async def test_each_refusal_in_the_callers_dialect(
    at: Keyed, path: str, body: Any, read: Any
) -> None:
    await at.admin("POST", "/accounts", {"id": "off"})
    _, disabled = await at.make(account_id="off")
    await at.admin("PATCH", "/accounts/off", {"disabled": True})
    gone_id, gone = await at.make()
    await at.admin("POST", f"/keys/{gone_id}/revoke")
    _, elsewhere = await at.make(networks=["192.0.2.0/24"])
    _, no_model = await at.make(models=[])
    _, no_path = await at.make(endpoints=["/v1/embeddings"])
    for key, status, kind, words in (
        (gone, 401, "authentication_error", "revoked"),
        ("sk-unknown", 401, "authentication_error", "unknown API key"),
        (disabled, 403, "permission_error", "disabled"),
        (elsewhere, 403, "permission_error", "network"),
        (no_model, 403, "permission_error", "may not use model 'echo'"),
        (no_path, 403, "permission_error", "may not be used at"),
    ):
        response = await at.send(key, "POST", path, body)
        assert response.status_code == status
        assert response.headers["x-should-retry"] == "false"
        assert words in response.text
        if read is not None:
            found, message = read(response.json())
            assert found == kind
            assert words in message


async def test_accounts(at: Keyed) -> None:
    for name in ("acme", "other"):
        await at.admin("POST", "/accounts", {"id": name})
    _, key = await at.make(account_id="acme")
    assert (await at.complete(key, account_id="acme")).status_code == 200
    assert (await at.complete(key, account_id="other")).status_code == 403
    await at.admin("PATCH", "/accounts/acme", {"enforcement": "warn"})
    assert "x-account-warning" in (await at.complete(key)).headers
    await at.admin("PATCH", "/accounts/acme", {"enforcement": "enforce"})
    assert (await at.complete(key)).status_code == 400
    assert (await at.complete(key, account_id="acme")).status_code == 200
    await at.admin("PATCH", "/accounts/acme", {"disabled": True})
    refused = await at.complete(key, account_id="acme")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "account_disabled")
    assert (await at.send(key, "GET", "/v1/models")).status_code == 403


async def test_no_secret_is_in_logs_lists_or_the_audit(at: Keyed) -> None:
    key_id, key = await at.make(name="a")
    await at.complete(key)
    await at.complete(key[:-1])
    new = (await at.admin("POST", f"/keys/{key_id}/rotate", {}))["key"]
    await at.admin("POST", f"/keys/{key_id}/revoke")
    await at.complete(new)
    shown = [str(await at.admin("GET", path)) for path in ("/keys", f"/keys/{key_id}", "/audit")]
    metrics = (await at.send(at.admin_key, "GET", "/metrics")).text
    log = at.site.log_text()
    assert key_id in log
    assert all(key_id in text for text in shown)
    for secret in (key, new, at.admin_key):
        for text in (log, metrics, *shown):
            assert secret[len(key_id) :] not in text
            assert secret[len(key_id) + 1 : -6] not in text


async def test_the_audit_says_who_did_what_and_when(at: Keyed) -> None:
    before = datetime.now(UTC)
    admin_id, admin = await at.make(role="admin", name="second")
    headers = {"x-api-key": admin, "x-request-id": "ticket-7"}
    body = {"id": "acme"}
    await at.site.client.post("/v4/admin/accounts", json=body, headers=headers)
    newest = (await at.admin("GET", "/audit?limit=1"))["items"][0]
    said = [newest[name] for name in ("actor", "action", "subject", "request_id")]
    assert said == [admin_id, "account.create", "acme", "ticket-7"]
    assert before <= datetime.fromisoformat(newest["at"]) <= datetime.now(UTC)


async def test_the_examples_of_the_description_run(at: Keyed) -> None:
    validated = 0
    for endpoint in ENDPOINTS:
        if not isinstance(endpoint.answer, Managed):
            continue
        operation = DOCUMENT["paths"][endpoint.path][endpoint.method.lower()]
        bodies: list[Any] = [None]
        if "requestBody" in operation:
            content = operation["requestBody"]["content"][JSON]
            bodies = [example["value"] for example in content["examples"].values()]
            schema = {**content["schema"], "components": DOCUMENT["components"]}
            for body in bodies:
                jsonschema.validate(body, schema)
        for body in bodies:
            name = "acme" if "accounts" in endpoint.path else (await at.make())[0]
            path = endpoint.path.replace(NAME, name)
            response = await at.send(at.admin_key, endpoint.method, path, body)
            assert response.status_code == 200, (path, response.text)
            assert response.headers["cache-control"] == "no-store"
            answer = operation["responses"]["200"]["content"][JSON]["schema"]
            jsonschema.validate(response.json(), {**answer, "components": DOCUMENT["components"]})
            validated += 1
    assert validated == 16


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "/accounts", {"id": "there"}, 409, "exists already"),
        ("POST", "/accounts", {"id": ""}, 422, "'id'"),
        ("POST", "/accounts", {"id": "a b"}, 422, "'id'"),
        ("POST", "/accounts", {}, 422, "'id' is required"),
        ("POST", "/accounts", {"id": "x", "color": "red"}, 422, "unknown field 'color'"),
        ("POST", "/accounts", {"id": "x", "name": "a\u0000b"}, 422, "'name'"),
        ("POST", "/accounts", {"id": "x", "enforcement": "maybe"}, 422, "'enforcement'"),
        ("PATCH", "/accounts/none", {"disabled": True}, 404, "no account 'none'"),
        ("GET", "/accounts/a%00b", None, 404, "no account"),
        ("GET", "/accounts/%ff%fe", None, 404, "no account"),
        ("GET", "/keys/none", None, 404, "no key 'none'"),
        ("POST", "/keys/none/rotate", {}, 404, "no key"),
        ("POST", "/keys/none/revoke", {}, 404, "no key"),
        ("POST", "/keys/%C3%A4/rotate", {}, 404, "no key"),
        ("PATCH", "/keys/none", {"models": None}, 404, "no key"),
        ("POST", "/keys", {"account_id": "none"}, 422, "no account 'none'"),
        ("POST", "/keys", {"role": "king"}, 422, "'role'"),
        ("POST", "/keys", {"networks": ["here"]}, 422, "'networks': 'here'"),
        ("POST", "/keys", {"endpoints": ["/v1/chat"]}, 422, "'/v1/chat' fits no path"),
        ("POST", "/keys", {"expires_at": "2020-01-01T00:00:00Z"}, 422, "in the past"),
        ("POST", "/keys", {"expires_at": "2099-01-01T00:00:00"}, 422, "'expires_at'"),
        ("POST", "/keys", [], 400, "JSON object"),
        ("GET", "/keys?page=0", None, 422, "'page'"),
    ],
)
async def test_what_administrators_get_wrong(
    at: Keyed, method: str, path: str, body: Any, status: int, words: str
) -> None:
    await at.admin("POST", "/accounts", {"id": "there"})
    response = await at.send(at.admin_key, method, f"/v4/admin{path}", body)
    assert response.status_code == status, response.text
    assert words in response.json()["detail"]


async def test_lists_have_pages(at: Keyed) -> None:
    await at.admin("POST", "/accounts", {"id": "acme"})
    ids = [(await at.make(account_id="acme"))[0] for _ in range(3)]
    page = await at.admin("GET", "/keys?account_id=acme&limit=2&page=2")
    assert [item["id"] for item in page["items"]] == ids[:1]
    assert (page["current_page"], page["items_per_page"], page["total_item_count"]) == (2, 2, 3)
    assert (await at.admin("GET", "/keys?account_id=%00"))["items"] == []


async def test_limits_change_one_by_one(at: Keyed) -> None:
    key_id, _ = await at.make(models=["echo"], networks=["10.0.0.0/8"])
    changed = await at.admin("PATCH", f"/keys/{key_id}", {"models": ["a", "b"]})
    assert (changed["models"], changed["networks"]) == (["a", "b"], ["10.0.0.0/8"])
    changed = await at.admin("PATCH", f"/keys/{key_id}", {"networks": None})
    assert (changed["models"], changed["networks"]) == (["a", "b"], None)


async def test_without_a_store_the_admin_api_says_what_to_set(
    open_site: Open, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("sk-admin role=admin")
    site = await open_site(api_keys_file=str(tmp_path / "keys"))
    headers = {"x-api-key": "sk-admin"}
    response = await site.client.get("/v4/admin/keys", headers=headers)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (501, "no_store")
    assert "SERVING_STORE_URL" in error["message"]
    assert response.headers["x-should-retry"] == "false"
    response = await site.client.get("/v4/admin/keys")
    assert response.status_code == 403


async def test_a_mounted_file_needs_no_store(
    open_site: Open, tmp_path: Path, eventually: Any
) -> None:
    file = tmp_path / "keys"
    file.write_text("sk-one:acme models=echo.pirate")
    site = await open_site(api_keys_file=str(file))
    await site.router.prepare()

    async def status(key: str, **more: Any) -> int:
        body, headers = {**COMPLETION, **more}, {"x-api-key": key}
        sent = await site.client.post("/v4/completions", json=body, headers=headers)
        return sent.status_code

    assert await status("sk-one", model="echo.pirate") == 200
    assert await status("sk-one") == 403
    assert await status("sk-any") == 200, "those of the setting count too"
    file.write_text("sk-two")
    await eventually(lambda: "keys_file_taken" in site.log_text())
    assert await status("sk-two") == 200
    assert await status("sk-one") == 401


async def test_a_router_that_starts_without_its_store(open_site: Open) -> None:
    site = await open_site(store_url="postgresql://nobody@127.0.0.1:1/none")
    await site.router.prepare()
    sent = await site.complete()
    assert sent.status_code == 200, "a key that needs no store"
    body, headers = COMPLETION, {"x-api-key": "svk_stored"}
    for key in ("sk-other", "svk_0123456789AB_" + "0" * 43):
        headers = {"x-api-key": key}
        refused = await site.client.post("/v4/completions", json=body, headers=headers)
        if key.startswith("sk-"):
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "store_unavailable"
            assert "retry-after" in refused.headers
        else:
            assert refused.status_code == 401, "no store knows a key whose checksum is wrong"
    assert '"store_away"' in site.log_text()
    assert site.metrics.registry.get_sample_value("serving_store_up") == 0
