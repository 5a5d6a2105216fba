"""No account finds another's images in an engine's caches: a router with two accounts in front of a
real vLLM engine with a tiny vision model, whose own counter of cached images is compared. No Ray.

vLLM knows an image by one name in all its caches (`tests/unit/engine/vllm/test_patch_media.py`), so
what holds for the renderer's, which is counted, holds for the encoder's.
"""

from __future__ import annotations

import base64
import io
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from serving.catalogue.catalogue import Catalogue
from tests.cluster.conftest import local_model
from tests.cluster.engine_server import EngineServer, engine_server
from tests.cluster.lone_router import lone_router
from tests.conftest import Eventually
from tests.live import BASE
from tests.vision_shape import write_vision

VISION = "tiny-vision"
ACME, OTHER, ANY = "sk-acme", "sk-other", "sk-any"
KEYS = f"{ACME}:acme,{OTHER}:other,{ANY}"

Ask = Callable[..., Awaitable[float]]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    folder = tmp_path_factory.mktemp("vision") / VISION
    write_vision(folder)
    local = local_model(BASE)
    vision = {
        "id": VISION,
        "kind": "engine",
        "weights": str(folder),
        "vision": True,
        "context": 256,
        "dtype": "float32",
        "prompt_style": "chat",
        "engine_args": {**local["engine_args"], "model_impl": "transformers"},
        "env": local["env"],
    }
    return Catalogue.model_validate({"models": [vision]})


@pytest.fixture(scope="module")
def engine(
    catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineServer]:
    folder = tmp_path_factory.mktemp("engine")
    with engine_server(catalogue.engines[0], folder, catalogue.images) as server:
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
    """`await ask(key, path, body)`: how many of the request's images the engine knew."""
    async with lone_router(
        catalogue, engine, tmp_path, eventually, **{"api_keys": KEYS, **settings}
    ) as router:

        async def counted() -> tuple[float, float]:
            return (
                await router.metric("vllm:mm_cache_queries_total"),
                await router.metric("vllm:mm_cache_hits_total"),
            )

        async def ask(key: str, path: str, body: dict[str, Any], **headers: str) -> float:
            asked, known = await counted()
            sent = {"x-api-key": key, **headers}
            response = await router.client.post(path, json={"model": VISION, **body}, headers=sent)
            assert response.status_code == 200, response.text
            asked_then, known_then = await counted()
            assert asked_then == asked + 1, "vLLM does not count this image"
            return known_then - known

        yield ask


def image() -> str:
    """One that no test has sent before."""
    out = io.BytesIO()
    Image.frombytes("RGB", (32, 32), random.randbytes(32 * 32 * 3)).save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def completion(**fields: Any) -> dict[str, Any]:
    asked = {"prompt": "What is it?", "images": [{"image_url": image()}]}
    return {**asked, "model_parameters": {"max_tokens": 4}, **fields}


def chat(**fields: Any) -> dict[str, Any]:
    parts = [
        {"type": "image_url", "image_url": {"url": image()}},
        {"type": "text", "text": "What is it?"},
    ]
    return {"messages": [{"role": "user", "content": parts}], "max_tokens": 4, **fields}


def message() -> dict[str, Any]:
    """In Anthropic's dialect."""
    data = image().partition(",")[2]
    source = {"type": "base64", "media_type": "image/png", "data": data}
    blocks = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
    return {"messages": [{"role": "user", "content": blocks}], "max_tokens": 4}


REQUESTS = [
    ("/v4/completions", completion()),
    ("/v2/completions", completion(stream=True)),
    ("/v1/chat/completions", chat()),
    ("/v1/chat/completions", chat(stream=True, cache_salt="mine")),
    ("/v1/messages", message()),
    # Prepared by a helper, as it has a grammar.
    ("/v1/chat/completions", chat(structured_outputs={"choice": ["a cat", "a dog"]})),
]


@pytest.mark.parametrize(("path", "body"), REQUESTS)
async def test_known_within_an_account_and_not_across(
    ask: Ask, path: str, body: dict[str, Any]
) -> None:
    assert await ask(ACME, path, body) == 0
    assert await ask(ACME, path, body) == 1, "its own image"
    assert await ask(OTHER, path, body) == 0, "another account's"
    assert await ask(OTHER, path, body) == 1
    assert await ask(ANY, path, body) == 0, "a key without an account"
    acme = {"x-selected-account-id": "acme"}
    assert await ask(ANY, path, body, **acme) == 1, "the account's, by another key"


@pytest.mark.parametrize("settings", [{"cache_salt": "off"}])
async def test_where_all_share_the_caches_all_find_it(ask: Ask) -> None:
    """It also shows that what is known can be seen across keys."""
    body = completion()
    assert await ask(ACME, "/v4/completions", body) == 0
    assert await ask(OTHER, "/v1/chat/completions", chat_of(body)) == 1


def chat_of(body: dict[str, Any]) -> dict[str, Any]:
    """A chat about a completion's image."""
    parts = [{"type": "image_url", "image_url": {"url": body["images"][0]["image_url"]}}]
    return {"messages": [{"role": "user", "content": parts}], "max_tokens": 4}
