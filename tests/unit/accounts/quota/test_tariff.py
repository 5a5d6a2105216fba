"""Which price and which limits an ID has."""

from __future__ import annotations

from typing import Any

import pytest

from serving.accounts.quota.tariff import NOTHING, Tariffs
from serving.catalogue.catalogue import Catalogue

BASE, OWN, HOSTED, OTHER = (
    {"input": number, "output": 2 * number, "cached": number} for number in range(1, 5)
)
ADAPTER = {"kind": "adapter", "base": "m", "weights": "/w", "revision": "1"}
MODELS: list[dict[str, Any]] = [
    {
        "kind": "engine",
        "id": "m",
        "weights": "w",
        "context": 1000,
        "lora": {},
        "price": BASE,
        "quota": {"requests_per_minute": 1},
    },
    {**ADAPTER, "id": "m.cheap", "price": OWN, "quota": {"requests_per_minute": 2}},
    {**ADAPTER, "id": "m.plain"},
    {"kind": "engine", "id": "free", "weights": "w", "context": 2000},
    {"kind": "upstream", "id": "hosted", "provider": "p", "model": "theirs", "price": HOSTED},
    {"kind": "upstream", "id": "acme/m", "provider": "p", "model": "other", "price": OTHER},
    {"kind": "upstream", "id": "off", "provider": "p", "model": "o", "deployed": False},
]
CATALOGUE = Catalogue.model_validate(
    {
        "models": MODELS,
        "aliases": {"latest": "m.plain", "cheap": "m.cheap", "elsewhere": "hosted"},
        "providers": {"p": {"dialect": "openai", "base_url": "http://p", "api_key_env": "KEY"}},
    }
)


@pytest.fixture
def tariffs() -> Tariffs:
    return Tariffs(CATALOGUE)


@pytest.mark.parametrize(
    ("asked", "model", "price"),
    [
        ("m", "m", BASE),
        # An adapter costs what its base does, if it has no price of its own.
        ("m.plain", "m.plain", BASE),
        ("m.cheap", "m.cheap", OWN),
        ("free", "free", None),
        ("hosted", "hosted", HOSTED),
        # `VENDOR/ID` stands for the ID, where no model is called so.
        ("vendor/m", "m", BASE),
        ("vendor/m.plain", "m.plain", BASE),
        ("vendor/hosted", "hosted", HOSTED),
        ("acme/m", "acme/m", OTHER),
        ("latest", "m.plain", BASE),
        ("cheap", "m.cheap", OWN),
        ("elsewhere", "hosted", HOSTED),
        ("vendor/cheap", "m.cheap", OWN),
    ],
)
def test_what_an_id_costs(
    tariffs: Tariffs, asked: str, model: str, price: dict[str, int] | None
) -> None:
    found = tariffs.of(asked)
    assert found.model == model
    assert found.price is None if price is None else found.price is not None
    if price and found.price:
        assert found.price.model_dump() == price


@pytest.mark.parametrize("unknown", ["no-such-model", "vendor/no-such-model", "off", "m/", "a/b/m"])
def test_an_id_that_no_model_answers_to_costs_nothing(tariffs: Tariffs, unknown: str) -> None:
    assert tariffs.of(unknown) is NOTHING


def test_limits_are_a_model_s_own_and_an_alias_s_those_of_its_model(tariffs: Tariffs) -> None:
    def per_minute(asked: str) -> int | None:
        given = tariffs.of(asked).quota
        return given.requests_per_minute if given is not None else None

    assert [per_minute(each) for each in ("m", "m.cheap", "cheap")] == [1, 2, 2]
    assert [per_minute(each) for each in ("m.plain", "latest", "hosted")] == [None] * 3
    assert tariffs.limited


def test_a_prompt_for_an_adapter_is_at_most_as_long_as_its_base_s(tariffs: Tariffs) -> None:
    contexts = [tariffs.of(each).context for each in ("m", "m.plain", "free", "hosted")]
    assert contexts == [1000, 1000, 2000, None]
