"""No account finds another's recordings in an engine's caches: a router with two accounts in front
of a real vLLM engine with a tiny Whisper, whose own counter of known media is compared. No Ray.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.api.audio import PATHS, TRANSCRIPTIONS, TRANSLATIONS
from serving.catalogue.catalogue import Catalogue
from serving.observability.logs import open_log
from serving.router.router import Router
from serving.settings import Settings
from serving.wire.entry import Entry
from tests.cluster.conftest import local_model
from tests.cluster.engine_server import REPLICA, TOKEN, EngineServer, engine_server
from tests.conftest import Eventually
from tests.live import BASE
from tests.whisper_shape import CONTEXT, recording, write_whisper

WHISPER = "tiny-whisper"
ACME, OTHER, ANY = "sk-acme", "sk-other", "sk-any"
KEYS = f"{ACME}:acme,{OTHER}:other,{ANY}"

Ask = Callable[..., Awaitable[float]]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    folder = tmp_path_factory.mktemp("shapes") / WHISPER
    write_whisper(folder)
    local = local_model(BASE)
    same = {field: local[field] for field in ("dtype", "engine_args", "env")}
    hears = {"id": WHISPER, "kind": "engine", "task": "transcribe", "weights": str(folder)}
    return Catalogue.model_validate({"models": [{**hears, "context": CONTEXT, **same}]})


@pytest.fixture(scope="module")
def engine(
    catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineServer]:
    with engine_server(catalogue.engines[0], tmp_path_factory.mktemp("engine")) as server:
        yield server


@pytest.fixture
def settings() -> dict[str, Any]:
    return {}


@pytest.fixture
async def ask(
    catalogue: Catalogue,
    engine: EngineServer,
    settings: dict[str, Any],
    tmp_path: Path,
    eventually: Eventually,
) -> AsyncIterator[Ask]:
    """`await ask(key, file, path)`: 1 if the engine knew the recording, else 0."""
    fields = {"host": "127.0.0.1", "port": 0, "api_keys": KEYS, "cluster_token": TOKEN, **settings}
    router = Router(
        Settings.model_validate(fields),
        router="r1",
        own_host="127.0.0.1",
        drain_s=0.0,
        log=open_log("audio-spaces-test", str(tmp_path)),
    )
    await router.set_catalogue(catalogue)
    ready = engine.ready
    at = ("127.0.0.1", ready.link_port, f"x:{ready.ops_port}")
    router.fleet.update([Entry(REPLICA, "engine", WHISPER, *at)])
    await eventually(lambda: router.fleet.ready(WHISPER) == 1)
    async with (
        httpx.AsyncClient(
            transport=httpx.ASGITransport(router.pipeline), base_url="http://router", timeout=60
        ) as client,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{ready.ops_port}", trust_env=False
        ) as metrics,
    ):

        async def counted() -> tuple[float, float]:
            text = (await metrics.get("/metrics")).text
            found = {
                sample.name: sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }
            return found["vllm:mm_cache_queries_total"], found["vllm:mm_cache_hits_total"]

        async def ask(
            key: str, file: bytes, path: str = TRANSCRIPTIONS, **more: dict[str, str]
        ) -> float:
            asked, known = await counted()
            response = await client.post(
                path,
                data={"model": WHISPER, "language": "en", **more.get("fields", {})},
                files={"file": ("a.wav", file)},
                headers={"x-api-key": key, **more.get("headers", {})},
            )
            assert response.status_code == 200, response.text
            asked_then, known_then = await counted()
            assert asked_then == asked + 1, "vLLM does not count this recording"
            return known_then - known

        yield ask
    await router.close()


def unheard() -> bytes:
    """A recording that no test has sent before."""
    return recording(random.randrange(1 << 40), 0.5)


FIELDS = ({}, {"stream": "true"}, {"response_format": "verbose_json"})


@pytest.mark.parametrize("path", sorted(PATHS))
@pytest.mark.parametrize("fields", FIELDS)
async def test_an_account_finds_its_own_recordings_alone(
    ask: Ask, path: str, fields: dict[str, str]
) -> None:
    file = unheard()
    assert await ask(ACME, file, path, fields=fields) == 0
    assert await ask(ACME, file, path, fields=fields) == 1, "it is cached, so it could be found"
    assert await ask(OTHER, file, path, fields=fields) == 0
    assert await ask(OTHER, file, path, fields=fields) == 1
    assert await ask(ANY, file, path, fields=fields) == 0, "a key without an account"
    acme = {"x-selected-account-id": "acme"}
    assert await ask(ANY, file, path, fields=fields, headers=acme) == 1, "by another key"


async def test_a_large_recording_too(ask: Ask) -> None:
    """It goes through the router's disk."""
    file = recording(random.randrange(1 << 40), 1.5, rate=16_000) + bytes(1 << 20)
    assert await ask(ACME, file) == 0
    assert await ask(ACME, file) == 1
    assert await ask(OTHER, file) == 0


@pytest.mark.parametrize("settings", [{"cache_salt": "off"}])
async def test_where_all_share_the_caches_all_find_it(ask: Ask) -> None:
    """It also shows that what is known can be seen across keys."""
    file = unheard()
    assert await ask(ACME, file) == 0
    assert await ask(OTHER, file, TRANSLATIONS) == 1
