from __future__ import annotations

import time

import pytest

from serving.accounts.caller import ANYONE
from serving.catalogue.catalogue import Catalogue
from serving.errors import NotDeployed, RetiredModel, UnknownModel
from serving.router.resolve import Resolver
from serving.wire.messages import AdapterRef, PromptFormat

CATALOGUE = Catalogue.model_validate(
    {
        "models": [
            {"kind": "engine", "id": "llama", "weights": "w", "context": 64, "lora": {}},
            {"kind": "adapter", "id": "gpt.odd.name", "base": "llama", "weights": "/w/odd"},
        ],
        "aliases": {"latest": "gpt.odd.name"},
    }
)


@pytest.fixture
def resolver() -> Resolver:
    return Resolver(CATALOGUE)


def test_ids_in_catalogue_order(resolver: Resolver) -> None:
    assert resolver.ids == ["llama", "gpt.odd.name", "latest"]


def test_an_engine_model(resolver: Resolver) -> None:
    route = resolver.resolve("llama", ANYONE)
    assert (route.model, route.engine.id, route.adapter, route.kind) == (
        "llama",
        "llama",
        None,
        "engine",
    )


@pytest.mark.parametrize("name", ["gpt.odd.name", "latest"])
def test_an_adapter_and_its_alias(resolver: Resolver, name: str) -> None:
    route = resolver.resolve(name, ANYONE)
    assert (route.model, route.engine.id, route.kind) == ("gpt.odd.name", "llama", "adapter")
    assert route.adapter == AdapterRef("gpt.odd.name", "/w/odd")


@pytest.mark.parametrize(
    ("base", "own", "prompt_format", "chat"),
    [
        ("raw", {}, None, False),
        ("chat", {}, None, True),
        ("raw", {"prompt_style": "chat"}, PromptFormat("chat"), True),
        ("chat", {"prompt_style": "raw"}, PromptFormat("raw"), False),
        ("chat", {"chat_template": "{{ t }}"}, PromptFormat(None, "{{ t }}"), True),
    ],
)
def test_an_adapters_prompts(
    base: str, own: dict[str, str], prompt_format: PromptFormat | None, chat: bool
) -> None:
    engine = {"kind": "engine", "id": "b", "weights": "/w", "context": 64, "lora": {}}
    adapter = {"kind": "adapter", "id": "a", "base": "b", "weights": "/w", **own}
    models = [{**engine, "prompt_style": base}, adapter]
    resolver = Resolver(Catalogue.model_validate({"models": models}))
    route = resolver.resolve("a", ANYONE)
    assert (route.prompt_format, route.chat) == (prompt_format, chat)
    route = resolver.resolve("b", ANYONE)
    assert (route.prompt_format, route.chat) == (None, base == "chat")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("lama", "closest IDs are 'llama'"),
        ("LLAMA", "closest IDs are 'llama'"),
        ("lattest", "'latest'"),
        ("zzzzzz", "GET /v1/models lists every ID"),
        ("", "GET /v1/models"),
    ],
)
def test_an_unknown_id_is_told_the_nearest(resolver: Resolver, asked: str, words: str) -> None:
    with pytest.raises(UnknownModel, match="unknown model") as caught:
        resolver.resolve(asked, ANYONE)
    assert words in caught.value.message
    assert caught.value.param == "model"


def test_among_very_many_ids_the_nearest_are_still_found_at_once() -> None:
    many = {
        "models": [
            {"kind": "engine", "id": "llama", "weights": "w", "context": 64, "lora": {}},
            *(
                {"kind": "adapter", "id": f"llama.team{n}.240601", "base": "llama", "weights": "/w"}
                for n in range(20_000)
            ),
        ]
    }
    resolver = Resolver(Catalogue.model_validate(many))
    started = time.process_time()
    for asked, found in (("llama.team1234.24060l", "llama.team1234.240601"), ("lama", "llama")):
        with pytest.raises(UnknownModel) as caught:
            resolver.resolve(asked, ANYONE)
        assert f"'{found}'" in caught.value.message
    assert time.process_time() - started < 0.5


VENDORS = Catalogue.model_validate(
    {
        "models": [
            {"kind": "engine", "id": "llama", "weights": "w", "context": 64},
            {"kind": "engine", "id": "off", "weights": "w", "context": 64, "deployed": False},
            {"kind": "engine", "id": "acme/own", "weights": "w", "context": 64},
            {"kind": "upstream", "id": "gpt", "provider": "openai"},
            {"kind": "retired", "id": "old", "provider": "openai", "retired_on": "2024"},
        ],
        "aliases": {"latest": "gpt"},
        "providers": {"openai": {"dialect": "openai", "base_url": "https://x/v1"}},
    }
)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("llmengine/llama", "llama"),
        ("launch/llama", "llama"),
        ("model_zoo/llama", "llama"),
        ("acme/own", "acme/own"),
        ("llmengine/acme/own", "acme/own"),
        ("openai/gpt", "gpt"),
        ("openai/latest", "gpt"),
    ],
)
def test_an_id_with_its_vendor(name: str, model: str) -> None:
    assert Resolver(VENDORS).resolve(name, ANYONE).model == model


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("openai/llama", UnknownModel),
        ("llmengine/gpt", UnknownModel),
        ("/llama", UnknownModel),
        ("llmengine/", UnknownModel),
        ("llmengine/llmengine/llama", UnknownModel),
        ("openai/off", UnknownModel),
        ("llmengine/off", NotDeployed),
        ("openai/old", RetiredModel),
        ("llmengine/old", UnknownModel),
    ],
)
def test_an_id_with_a_vendor_that_does_not_answer(name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        Resolver(VENDORS).resolve(name, ANYONE)
