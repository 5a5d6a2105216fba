"""No account finds another's prompts in an engine's prefix cache: a router with two accounts in
front of a real vLLM engine, whose own counter of prefix cache hits is compared. No Ray."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from serving.catalogue.catalogue import Catalogue
from serving.store.engine import Store
from serving.store.usage import Span, Usage
from tests.cluster.conftest import local_model
from tests.cluster.engine_server import EngineServer, engine_server
from tests.cluster.lone_router import lone_router
from tests.conftest import Eventually
from tests.live import BASE, PIRATE

ACME, OTHER, ANY = "sk-acme", "sk-other", "sk-any"
KEYS = f"{ACME}:acme,{OTHER}:other,{ANY}"
HITS = "vllm:prefix_cache_hits_total"
CHAT = {
    "kind": "engine",
    "chat_template": "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}",
}

Ask = Callable[..., Awaitable[float]]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.model_validate({"models": [local_model(BASE) | CHAT, local_model(PIRATE)]})


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
    """`await ask(key, path, body)`: how many tokens of the request the engine had in its cache."""
    async with lone_router(
        catalogue, engine, tmp_path, eventually, **{"api_keys": KEYS, **settings}
    ) as router:

        async def ask(key: str, path: str, body: dict[str, Any], **headers: str) -> float:
            before = await router.metric(HITS)
            sent = {"x-api-key": key, **headers}
            response = await router.client.post(path, json={"model": BASE, **body}, headers=sent)
            assert response.status_code == 200, response.text
            return await router.metric(HITS) - before

        yield ask


def prompt() -> str:
    """A long one that no test has asked before."""
    return f"{uuid.uuid4().hex} " + "the river and the people of the water " * 50


def completion(**fields: Any) -> dict[str, Any]:
    return {"prompt": prompt(), "model_parameters": {"max_tokens": 1}, **fields}


def openai(**fields: Any) -> dict[str, Any]:
    return {"prompt": prompt(), "max_tokens": 1, **fields}


def chat(**fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt()}]
    return {"messages": messages, "max_tokens": 1, **fields}


def response(**fields: Any) -> dict[str, Any]:
    return {"input": prompt(), "max_output_tokens": 1, **fields}


# So many bytes beside the prompt have a helper prepare the request, whatever its endpoint.
HEAVY = {"metadata": {"note": "x" * 32_000}}

REQUESTS = [
    ("/v4/completions", completion()),
    ("/v2/completions", completion(stream=True)),
    ("/v4/completions", completion(model=PIRATE)),
    ("/v1/completions", openai()),
    ("/v1/completions", openai(stream=True, cache_salt="mine")),
    ("/v1/completions", openai(n=3, cache_salt="mine")),
    ("/v1/completions", openai(model=PIRATE, cache_salt="mine")),
    ("/v1/completions", openai(n=2, use_beam_search=True, max_tokens=3)),
    ("/v1/chat/completions", chat()),
    ("/v1/chat/completions", chat(stream=True)),
    ("/v1/chat/completions", chat(cache_salt="mine")),
    ("/v1/chat/completions", chat(model=PIRATE, stream=True, cache_salt="mine")),
    ("/v1/responses", response()),
    ("/v1/responses", response(stream=True, cache_salt="mine")),
    ("/v1/responses", response(model=PIRATE)),
    ("/v1/messages", chat()),
    ("/v1/messages", chat(model=PIRATE, stream=True)),
    ("/v1/completions", openai(**HEAVY)),
    ("/v1/completions", openai(**HEAVY, stream=True, cache_salt="mine")),
    ("/v1/completions", openai(**HEAVY, model=PIRATE, n=3)),
    ("/v1/chat/completions", chat(**HEAVY, cache_salt="mine")),
    ("/v1/responses", response(**HEAVY)),
    ("/v1/messages", chat(**HEAVY)),
]


@pytest.mark.parametrize(("path", "body"), REQUESTS)
async def test_hits_within_an_account_and_none_across(
    ask: Ask, path: str, body: dict[str, Any]
) -> None:
    cold = await ask(ACME, path, body)
    warm = await ask(ACME, path, body)
    assert warm > cold, "its own prompt"

    def is_cold(hits: float) -> bool:
        # Choices and beams find what the first of them has written: how much depends on which are
        # in the same step. None of them finds anything before the first has.
        return hits < warm if "n" in body else hits == 0

    assert is_cold(cold)
    assert is_cold(await ask(OTHER, path, body)), "another account's"
    assert not is_cold(await ask(OTHER, path, body))
    assert is_cold(await ask(ANY, path, body)), "a key without an account"
    acme = {"x-selected-account-id": "acme"}
    assert not is_cold(await ask(ANY, path, body, **acme)), "the account's, by another key"


async def test_a_salt_of_ones_own_divides_ones_own_space(ask: Ask) -> None:
    for path, body in (("/v1/completions", openai()), ("/v1/chat/completions", chat())):
        await ask(ACME, path, body)
        assert await ask(ACME, path, body | {"cache_salt": "a"}) == 0
        assert await ask(ACME, path, body | {"cache_salt": "a"}) > 0
        assert await ask(ACME, path, body | {"cache_salt": "b"}) == 0
        assert await ask(OTHER, path, body | {"cache_salt": "a"}) == 0


async def test_the_ledger_has_how_much_the_cache_had(
    catalogue: Catalogue, engine: EngineServer, tmp_path: Path, eventually: Eventually
) -> None:
    """As the engine's own counter says it, of each request."""
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    settings = {"api_keys": KEYS, "store_url": url, "ledger": "store"}
    requests = [
        ("/v4/completions", completion()),
        ("/v2/completions", completion(stream=True)),
        ("/v1/completions", openai()),
        ("/v1/chat/completions", chat(stream=True)),
    ]
    hits: dict[str, float] = {}
    async with lone_router(catalogue, engine, tmp_path, eventually, **settings) as router:
        for number, (path, body) in enumerate(requests):
            for turn in ("first", "again"):
                name = f"{turn}-{number}"
                before = await router.metric(HITS)
                headers = {"x-api-key": ACME, "x-request-id": name}
                answer = await router.client.post(
                    path, json={"model": BASE, **body}, headers=headers
                )
                assert answer.status_code == 200, answer.text
                hits[name] = await router.metric(HITS) - before
    store = Store(url)
    now = datetime.now(UTC)
    rows = await Usage(store).entries(Span(now - timedelta(hours=1), now + timedelta(hours=1)))
    await store.close()
    assert {row["request_id"]: row["cached_tokens"] for row in rows} == hits
    for number in range(len(requests)):
        assert hits[f"first-{number}"] == 0
        assert hits[f"again-{number}"] > 0
    assert all(row["cached_tokens"] <= row["prompt_tokens"] for row in rows)


@pytest.mark.parametrize(
    "settings", [{"cache_salt": "off"}, {"api_keys": f"{ACME}:acme,{OTHER}:acme"}]
)
async def test_where_all_share_the_cache_all_hit(ask: Ask, settings: dict[str, Any]) -> None:
    """Off, or a single account. It also shows that the hits above can be seen across keys."""
    path, body = "/v4/completions", completion()
    assert await ask(ACME, path, body) == 0
    assert await ask(OTHER, path, body) > 0
