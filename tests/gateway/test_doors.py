"""What callers without a key see, on the port that all share and on a router's own; and whose
prompts may meet in an engine's cache."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.gateway.conftest import KEY, Open, Site

BEARER = {"authorization": "Bearer scrape"}


@asynccontextmanager
async def listeners(site: Site) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Clients without a key of the shared port and of the router's own."""
    shared, own = await site.listen(), site.router.entry.port
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{shared}", trust_env=False) as shared_port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{own}", trust_env=False) as own_port,
    ):
        yield shared_port, own_port


@pytest.mark.parametrize("closed", [{"host": "0.0.0.0"}, {"public_pages": "closed"}])
async def test_the_shared_port_names_no_model(open_site: Open, closed: dict[str, Any]) -> None:
    site = await open_site(**closed)
    async with listeners(site) as (shared, own):
        for headers in ({}, {"x-api-key": "sk-wrong"}, BEARER):
            ready = await shared.get("/ready", headers=headers)
            assert (ready.status_code, ready.json()) == (200, {"ready": True})
            metrics = await shared.get("/metrics", headers=headers)
            assert metrics.status_code == 401
            for path in ("/health", "/-/healthz"):
                assert (await shared.get(path, headers=headers)).status_code == 200
            for path in ("/ready", "/metrics", "/health", "/nonsense", "/v1/models", "/status"):
                assert "echo" not in (await shared.get(path, headers=headers)).text, path
        assert "echo" in (await shared.get("/ready", headers=KEY)).json()["models"]
        assert (await shared.get("/metrics", headers=KEY)).status_code == 200
        # Prometheus' port.
        assert "echo" in (await own.get("/ready")).json()["models"]
        assert (await own.get("/metrics")).status_code == 200


async def test_a_probe_without_a_key_sees_the_truth(open_site: Open) -> None:
    site = await open_site(replicas=0, public_pages="closed")
    del site.client.headers["x-api-key"]
    ready = await site.client.get("/ready")
    assert (ready.status_code, ready.json()) == (503, {"ready": False})


async def test_open_pages(open_site: Open) -> None:
    site = await open_site(host="0.0.0.0", public_pages="open")
    async with listeners(site) as (shared, _):
        assert "echo" in (await shared.get("/ready")).json()["models"]
        assert (await shared.get("/metrics")).status_code == 200


async def test_the_own_port_may_ask_for_a_token(open_site: Open) -> None:
    site = await open_site(metrics_token="scrape")
    async with listeners(site) as (shared, own):
        assert (await own.get("/metrics")).status_code == 401
        wrong = {"authorization": "Bearer scrapes"}
        assert (await own.get("/metrics", headers=wrong)).status_code == 401
        assert (await own.get("/ready")).json() == {"ready": True}
        assert (await own.get("/metrics", headers=BEARER)).status_code == 200
        assert (await own.get("/metrics", headers=KEY)).status_code == 200
        # It opens nothing else.
        assert (await own.get("/status", headers=BEARER)).status_code == 401
        assert (await shared.get("/metrics")).status_code == 200, "on loopback, as ever"


@pytest.mark.parametrize("keys", ["sk-local", "sk-any,sk-local:acme"])
async def test_no_router_serves_the_network_with_the_well_known_key(
    open_site: Open, keys: str
) -> None:
    with pytest.raises(ValueError, match="SERVING_API_KEYS"):
        await open_site(host="0.0.0.0", api_keys=keys)


@pytest.mark.parametrize("path", ["/v4/completions", "/v2/completions", "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [False, True])
async def test_each_call_says_whose_cache_it_may_share(site: Site, path: str, stream: bool) -> None:
    async def space(key: str, account: str = "") -> str:
        headers = {"x-api-key": key}
        if account:
            headers["x-selected-account-id"] = account
        body: dict[str, Any] = {"model": "echo", "stream": stream}
        if path.startswith("/v1"):
            body |= {"messages": [], "cache_salt": "own"}
        else:
            body |= {"prompt": "one"}
        response = await site.client.post(path, json=body, headers=headers)
        assert response.status_code == 200, response.text
        return site.engines[0].calls[-1].cache_space

    acme = await space("sk-acme")
    assert acme == await space("sk-any", "acme")
    assert len({acme, await space("sk-any"), await space("sk-any", "other"), ""}) == 4


async def test_one_account_shares_its_cache(open_site: Open) -> None:
    site = await open_site(api_keys="sk-any:acme,sk-two:acme")
    await site.complete()
    assert site.engines[0].calls[-1].cache_space == ""
