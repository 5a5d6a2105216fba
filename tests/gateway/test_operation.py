"""What operators and Prometheus ask."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Eventually
from tests.gateway.conftest import Open, Site


async def test_health_and_ready(open_site: Open, eventually: Eventually) -> None:
    site = await open_site(replicas=0)
    assert (await site.client.get("/health")).json() == {
        "alive": True,
        "router": "r1",
        "status": "success",
    }
    response = await site.client.get("/ready")
    assert response.status_code == 503
    assert response.json()["models"]["latest"] == {"ready": False, "replicas": 0}
    await site.add_replica()
    await eventually(lambda: site.fleet.ready("echo"))
    response = await site.client.get("/ready")
    assert response.status_code == 200
    assert response.json()["models"]["latest"] == {"ready": True, "replicas": 1}
    await site.kill(0)
    await eventually(lambda: not site.fleet.ready("echo"))
    assert (await site.client.get("/ready")).status_code == 503


async def test_probes_need_no_key_but_status_does(site: Site) -> None:
    del site.client.headers["x-api-key"]
    for path in ("/health", "/ready", "/metrics"):
        assert (await site.client.get(path)).status_code == 200, path
    for path in ("/metrics/targets", "/status", "/v1/models", "/v1/models/echo", "/user-info"):
        assert (await site.client.get(path)).status_code == 401, path


async def test_metrics(site: Site) -> None:
    await site.complete()
    response = await site.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    values = {
        (sample.name, sample.labels.get("model")): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    assert values["serving_requests_total", "echo"] == 1
    assert values["serving_completion_tokens_total", "echo"] == 3
    assert values["serving_requests_in_flight", "echo"] == 0


async def test_targets(site: Site) -> None:
    (target,) = (await site.client.get("/metrics/targets")).json()
    assert target["targets"] == [site.entries[0].ops]
    assert target["labels"] == {"component": "engine", "model": "echo", "replica": "echo#1"}


async def test_status(site: Site, eventually: Eventually) -> None:
    await site.complete(model="echo.pirate")
    await eventually(lambda: site.fleet.pick("echo").load.adapters)
    models = {model["id"]: model for model in (await site.client.get("/status")).json()["models"]}
    assert {name: model["kind"] for name, model in models.items()} == {
        "echo": "engine",
        "echo.pirate": "adapter",
        "latest": "alias",
    }
    assert models["latest"]["base"] == "echo.pirate"
    (replica,) = models["echo"]["replicas"]
    assert (replica["id"], replica["state"]) == ("echo#1", "ready")
    assert replica["adapters"] == ["echo.pirate"]


@pytest.mark.parametrize(("key", "account"), [("sk-any", "default"), ("sk-acme", "acme")])
async def test_user_info(site: Site, key: str, account: str) -> None:
    response = await site.client.get("/user-info", headers={"x-api-key": key})
    (profile,) = response.json()["access_profiles"]
    assert (profile["role"], profile["account"]["id"]) == ("admin", account)
