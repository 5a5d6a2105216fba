"""What an engine server tells Prometheus and probes, and whom."""

from __future__ import annotations

import httpx
import pytest

from serving.catalogue.spec import EngineSpec
from serving.engine.echo import EchoEngine
from serving.engine.ops import ops_app

BEARER = {"authorization": "Bearer scrape"}


def client(engine: EchoEngine, token: str) -> httpx.AsyncClient:
    app = ops_app(engine, model="secret-model", replica="r#1", token=token)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine")


@pytest.fixture
def engine() -> EchoEngine:
    return EchoEngine(EngineSpec(id="secret-model", weights="w", context=100))


async def test_without_a_token_all_is_told(engine: EchoEngine) -> None:
    async with client(engine, "") as ops:
        assert (await ops.get("/health")).json()["model"] == "secret-model"
        assert (await ops.get("/metrics")).status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer scrapes"}, {"authorization": "Basic scrape"}]
)
async def test_strangers_hear_only_whether_it_lives(
    engine: EchoEngine, headers: dict[str, str]
) -> None:
    async with client(engine, "scrape") as ops:
        assert (await ops.get("/metrics", headers=headers)).status_code == 401
        for path in ("/health", "/ready"):
            assert (await ops.get(path, headers=headers)).json() == {"alive": True}
        engine.dead = True
        dead = await ops.get("/ready", headers=headers)
        assert (dead.status_code, dead.json()) == (503, {"alive": False})


async def test_the_token_opens(engine: EchoEngine) -> None:
    async with client(engine, "scrape") as ops:
        assert (await ops.get("/metrics", headers=BEARER)).status_code == 200
        assert (await ops.get("/health", headers=BEARER)).json()["model"] == "secret-model"
