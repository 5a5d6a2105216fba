"""Which models there are: lists, what is known but not served, and changes of the catalogue."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from serving.accounts.caller import ANYONE
from serving.catalogue.catalogue import Catalogue
from serving.catalogue.load import load_catalogue, seed_catalogue
from serving.catalogue.spec import AdapterSpec, AnySpec, EngineSpec, RetiredSpec, UpstreamSpec
from serving.router.resolve import Resolver
from tests.conftest import Eventually
from tests.gateway.conftest import Open, Site

SEED = seed_catalogue().models


def everything(site: Site) -> Catalogue:
    """What the site serves and what the seed knows."""
    data = site.catalogue.model_dump()
    data["models"] = [*data["models"], *(spec.model_dump() for spec in SEED)]
    return Catalogue.model_validate(data)


@pytest.fixture
async def knowing(site: Site) -> Site:
    await site.router.set_catalogue(everything(site))
    return site


@pytest.mark.parametrize("spec", SEED, ids=lambda spec: spec.id)
async def test_each_id_of_the_seed_has_an_honest_answer(
    knowing: Site, spec: AnySpec, tmp_path: Path
) -> None:
    for path, body in (
        ("/v4/completions", {"prompt": "hi"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
    ):
        answer = await knowing.client.post(path, json={"model": spec.id, **body})
        error = answer.json()["error"]
        assert answer.headers["x-should-retry"] == "false"
        if isinstance(spec, RetiredSpec):
            assert (answer.status_code, error["code"]) == (410, "model_retired")
            assert spec.retired_on in error["message"]
            assert f"its successor is '{spec.successor}'" in error["message"]
            _advice_loads(error["message"], tmp_path / "models.yaml", spec.id)
        else:
            assert isinstance(spec, EngineSpec | AdapterSpec | UpstreamSpec)
            assert (answer.status_code, error["code"]) == (404, "model_not_deployed")
            assert "serving apply" in error["message"]
            _advice_loads(error["message"], tmp_path / "models.yaml", spec.id)


def _advice_loads(message: str, file: Path, model_id: str) -> None:
    """Check that a models file with what the message says to write serves the ID."""
    quoted = re.findall("`([^`]+)`", message)
    items = [text for text in quoted if text.startswith("- ")]
    aliases = [text for text in quoted if text.startswith("aliases: ")]
    file.write_text("\n".join(["models:", *items, *aliases]))
    assert Resolver(load_catalogue(file)).resolve(model_id, ANYONE)


async def test_each_id_can_be_turned_on_by_naming_it(
    open_site: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    named = [spec for spec in SEED if not isinstance(spec, RetiredSpec)]
    assert len(named) == 48
    file = tmp_path / "models.yaml"
    file.write_text("models:\n" + "".join(f"  - {spec.id}\n" for spec in named))
    catalogue = load_catalogue(file)
    site = await open_site(replicas=0, hold_s=0)
    await site.router.set_catalogue(catalogue)
    resolver = Resolver(catalogue)
    for spec in named:
        route = resolver.resolve(spec.id, ANYONE)
        kinds = {EngineSpec: "engine", AdapterSpec: "adapter", UpstreamSpec: "upstream"}
        assert (route.model, route.kind) == (spec.id, kinds[type(spec)])
        assert route.engine.id == (spec.base if isinstance(spec, AdapterSpec) else spec.id)
        # No replica runs and there is no key: the message says which is missing.
        answer = await site.client.post("/v4/completions", json={"model": spec.id, "prompt": "x"})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (503, "model_unavailable")
        missing = "OPENAI_API_KEY" if route.kind == "upstream" else f"'{route.engine.id}'"
        assert missing in error["message"]


async def test_lists_hold_what_is_deployed_and_on_request_the_rest(knowing: Site) -> None:
    served = ["echo", "echo.pirate", "latest"]
    get = knowing.client.get
    assert [model["id"] for model in (await get("/v1/models")).json()["data"]] == served
    assert [model["id"] for model in (await get("/v4/models")).json()["items"]] == served
    listed = (await get("/v1/models?all=true")).json()["data"]
    assert {model["id"] for model in listed} == {*served, *(spec.id for spec in SEED)}
    by_id = {model["id"]: model for model in listed}
    assert by_id["echo"]["deployed"]
    assert not by_id["llama-2-7b"]["deployed"]
    assert by_id["zephyr-cat-merged"]["max_model_len"] == by_id["zephyr-7b-beta"]["max_model_len"]
    assert by_id["gpt-4"]["kind"] == "retired"
    assert by_id["gpt-4"]["retired_on"] == "2026-10-23"
    page = (await get("/v4/models?all=true&limit=10&page=2")).json()
    assert (len(page["items"]), page["current_page"], page["items_per_page"]) == (10, 2, 10)
    assert page["total_item_count"] == len(listed)
    items = (await get("/v4/models?all=true&limit=1000")).json()["items"]
    # An adapter that is not deployed is a chat model if its base is.
    chats = {item["id"] for item in items if item["supports_multi_turn"]}
    assert chats >= {"zephyr-7b-beta", "zephyr-cat-merged", "Meta-Llama-3-8B-Instruct-DERTA"}
    assert not chats & {"echo", "echo.pirate", "llama-2-7b"}


async def test_lists_tell_the_parsers_of_engine_models_and_of_adapters(site: Site) -> None:
    data = everything(site).model_dump()
    echo, *others = data["models"]
    echo |= {"tool_parser": "hermes", "reasoning_parser": "deepseek_r1"}
    data["models"] = [echo, *others]
    await site.router.set_catalogue(Catalogue.model_validate(data))
    listed = (await site.client.get("/v1/models?all=true")).json()["data"]
    found = {at["id"]: (at.get("tool_parser"), at.get("reasoning_parser")) for at in listed}
    assert found["echo"] == found["echo.pirate"] == found["latest"] == ("hermes", "deepseek_r1")
    assert found["llama-3-1-8b-instruct"] == ("llama3_json", None)
    assert found["llama-3-8b-instruct"] == found["gpt-4o"] == (None, None)


async def test_one_model(knowing: Site) -> None:
    get = knowing.client.get
    adapter = (await get("/v4/models/echo.pirate")).json()
    assert (adapter["base_model_id"], adapter["deployment_count"]) == ("echo", 1)
    assert (await get("/v1/models/latest")).json()["kind"] == "alias"
    assert (await get("/v4/models/gpt-4")).status_code == 410
    assert (await get("/v4/models/llama-2-7b")).status_code == 404
    assert (await get("/v4/models/nothing")).json()["error"]["code"] == "unknown_model"
    assert (await get("/v4/models?limit=0")).status_code == 422


async def test_an_alias_gives_a_retired_id_a_route_that_names_who_answered(site: Site) -> None:
    data = everything(site).model_dump() | {"aliases": {"gpt-4": "echo"}}
    await site.router.set_catalogue(Catalogue.model_validate(data))
    answer = await site.complete(model="gpt-4")
    assert answer.status_code == 200
    assert answer.json()["completion"]["response_metadata"] == {"model": "echo"}
    assert answer.headers["x-served-model"] == "echo"
    openai = {"model": "gpt-4", "messages": [{"role": "user", "content": "hi"}]}
    answer = await site.client.post("/v1/chat/completions", json=openai)
    assert answer.headers["x-served-model"] == "echo"
    assert "x-served-model" not in (await site.complete()).headers
    listed = (await site.client.get("/v1/models?all=true")).json()["data"]
    (entry,) = [model for model in listed if model["id"] == "gpt-4"]
    assert (entry["kind"], entry["root"]) == ("alias", "echo")


async def test_a_model_that_is_removed_ends_what_it_has_and_takes_nothing_new(
    open_site: Open, eventually: Eventually
) -> None:
    site = await open_site(engine={"interval_s": 0.05})
    running = asyncio.create_task(site.complete("one two three four"))
    await eventually(lambda: site.running == 1)
    await site.router.set_catalogue(Catalogue(models=()))
    refused = await site.complete()
    assert refused.json()["error"]["code"] == "unknown_model"
    assert (await running).status_code == 200
    site.fleet.update(site.entries)
    assert (await site.client.get("/ready")).json() == {"ready": True, "models": {}}
    # And back again.
    await site.router.set_catalogue(site.catalogue)
    await eventually(lambda: site.fleet.ready("echo") == 1)
    assert (await site.complete()).status_code == 200


async def test_a_stream_outlives_a_change_of_the_catalogue(
    open_site: Open, eventually: Eventually
) -> None:
    site = await open_site(engine={"interval_s": 0.03})
    reader, writer = await site.send(stream=True, prompt="one two three four five")
    await eventually(lambda: site.running == 1)
    for _ in range(5):
        await site.router.set_catalogue(site.catalogue)
        await asyncio.sleep(0.02)
    text = (await reader.readuntil(b"0\r\n\r\n")).decode()
    writer.close()
    last = [line for line in text.splitlines() if line.startswith("data: ")][-1]
    assert json.loads(last.removeprefix("data: "))["token_usage"]["completion"] == 5
