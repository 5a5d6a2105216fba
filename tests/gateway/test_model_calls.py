"""`/v4/models/{model}/completions` and `/chat-completions`, and the deployments of models."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.gateway.conftest import Open, Site, events
from tests.gateway.talking import SAYS, TalkingEngine
from tests.gateway.test_refusals import envelope

LOGPROBS = {"content": [{"token": SAYS[0], "logprob": -0.5, "top_logprobs": []}]}
MODELS = [("echo", ""), ("echo.pirate", "<echo.pirate>"), ("latest", "<echo.pirate>")]


@pytest.fixture
async def talking(open_site: Open) -> Site:
    return await open_site(double=TalkingEngine)


async def complete(site: Site, model: str = "echo", **fields: Any) -> httpx.Response:
    body = {"prompt": "one two", **fields}
    return await site.client.post(f"/v4/models/{model}/completions", json=body)


async def chat(site: Site, model: str = "echo", **fields: Any) -> httpx.Response:
    body = {"prompt": "Hello!", "chat_history": [], **fields}
    return await site.client.post(f"/v4/models/{model}/chat-completions", json=body)


def sent(site: Site) -> dict[str, Any]:
    engine = site.engines[0]
    assert isinstance(engine, TalkingEngine)
    return engine.bodies[-1]


def answer(prompt: str, text: str, reason: str | None, used: int | None) -> dict[str, Any]:
    return {
        "completions": [[prompt, [text]]],
        "choices": None,
        "finish_reason": reason,
        "prompt_tokens": used,
        "response_tokens": used,
    }


@pytest.mark.parametrize(("model", "mark"), MODELS)
async def test_a_completion(site: Site, model: str, mark: str) -> None:
    whole = await complete(site, model)
    assert whole.json() == answer("one two", f"{mark}one {mark}two ", "stop", 2)
    streamed = await complete(site, model, stream=True)
    assert [data for _, data in events(streamed.text)] == [
        answer("", f"{mark}one ", None, None),
        answer("", f"{mark}two ", None, None),
        answer("", "", "stop", 2),
    ]
    assert site.counted(endpoint="/v4/models/{model}/completions", outcome="ok") == 2


async def test_the_parameters_of_a_completion(site: Site) -> None:
    await complete(site)
    await complete(
        site,
        temperature=2,
        max_tokens=1,
        stop_sequences=["x"],
        top_k=3.0,
        top_p=0.5,
        frequency_penalty=1,
        presence_penalty=-1,
        logprobs=False,
        chat_template=None,
        model_request_parameters={"bindings": {}},
    )
    plain, full = (call.sampling for call in site.engines[0].calls)  # type: ignore[union-attr]
    assert (plain.temperature, plain.max_tokens) == (0.2, None)
    assert (full.temperature, full.max_tokens, full.stop, full.top_k) == (2, 1, ("x",), 3)
    assert (full.top_p, full.frequency_penalty, full.presence_penalty) == (0.5, 1, -1)


@pytest.mark.parametrize(("model", "mark"), MODELS)
async def test_a_chat(talking: Site, model: str, mark: str) -> None:
    history = [{"role": "system", "content": "Be brief."}, {"content": "Hi"}]
    whole = await chat(talking, model, chat_history=history, max_tokens=9)
    said = "".join(SAYS)
    assert whole.json() == answer("Hello!", said, "stop", 7) | {"response_tokens": 3}
    assert sent(talking) == {
        "model": model,
        "messages": [
            history[0],
            {"role": "user", "content": "Hi"},
            {"role": "user", "content": "Hello!"},
        ],
        "temperature": 0.2,
        "max_tokens": 9,
    }
    assert talking.engines[0].calls[-1].adapter is None or mark
    streamed = await chat(talking, model, stream=True)
    assert [data for _, data in events(streamed.text)] == [
        *(answer("", word, None, None) for word in SAYS),
        answer("", "", "stop", 7) | {"response_tokens": 3},
    ]


async def test_probabilities_in_a_chat(talking: Site) -> None:
    asked = {"logprobs": True, "top_logprobs": 2, "chat_template_kwargs": {"x": 1}}
    streamed = await chat(talking, stream=True, **asked)
    assert asked.items() <= sent(talking).items()
    (_, first), *_ = events(streamed.text)
    assert first["choices"] == [{"index": 0, "logprobs": LOGPROBS}]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"prompt": None}, 422, "prompt"),
        ({"prompt": ["x"]}, 422, "prompt"),
        ({"model": "x"}, 422, "model"),
        ({"temperature": 3}, 422, "temperature"),
        ({"top_k": 0.5}, 422, "top_k"),
        ({"top_k": 1.5}, 422, "top_k"),
        ({"top_k": 0}, 422, "top_k"),
        ({"max_tokens": 10**30}, 422, "max_tokens"),
        ({"stop_sequences": ["x"] * 5}, 422, "stop_sequences"),
        ({"reasoning_effort": "low"}, 422, "reasoning_effort"),
        ({"reasoning_effort": "some"}, 422, "reasoning_effort"),
        ({"chat_template": "x"}, 422, "chat_template"),
        ({"model_request_parameters": {"bindings": {"a": 1}}}, 422, "model_request_parameters"),
        ({"model_request_parameters": {}}, 422, "model_request_parameters.bindings"),
        ({"top_logprobs": 21}, 422, "top_logprobs"),
    ],
)
@pytest.mark.parametrize("path", ["completions", "chat-completions"])
async def test_a_bad_request(
    talking: Site, path: str, fields: dict[str, Any], status: int, param: str
) -> None:
    body = {"prompt": "x", **({"chat_history": []} if path[1] == "h" else {}), **fields}
    response = await talking.client.post(f"/v4/models/echo/{path}", json=body)
    assert (response.status_code, envelope(response)["param"]) == (status, param)
    assert not talking.engines[0].calls
    assert talking.counted(outcome="rejected") == talking.counted() == 1


async def test_what_only_a_completion_refuses(talking: Site) -> None:
    for name, value in (
        ("logprobs", True),
        ("top_logprobs", 1),
        ("chat_template_kwargs", {"a": 1}),
    ):
        response = await complete(talking, **{name: value})
        assert (response.status_code, envelope(response)["param"]) == (422, name)
    without = await talking.client.post("/v4/models/echo/chat-completions", json={"prompt": "x"})
    assert (without.status_code, envelope(without)["param"]) == (422, "chat_history")


async def test_the_engine_s_refusals_name_the_caller_s_field(site: Site) -> None:
    response = await complete(site, prompt="word " * 2000)
    assert (response.status_code, envelope(response)["param"]) == (400, "prompt")
    unknown = await complete(site, model="ecko")
    assert (unknown.status_code, envelope(unknown)["code"]) == (404, "unknown_model")


async def test_deployments(site: Site) -> None:
    listed = (await site.client.get("/v4/model-deployments?limit=2")).json()
    assert (listed["current_page"], listed["items_per_page"], listed["total_item_count"]) == (
        1,
        2,
        3,
    )
    assert [item["id"] for item in listed["items"]] == ["echo", "echo.pirate"]
    (latest,) = (await site.client.get("/v4/models/latest/deployments")).json()["items"]
    assert (latest["id"], latest["model_instance_id"]) == ("latest", "latest")
    assert latest["status"] == "READY"
    one = await site.client.get("/v4/models/latest/deployments/latest")
    assert one.json() == latest
    model = (await site.client.get("/v4/models/latest")).json()
    assert model["deployment_count"] == 1
    by_id = "/v4/model-deployments?sort_by=model_instance_id:desc&sort_by=status:asc"
    items = (await site.client.get(by_id)).json()["items"]
    assert [item["id"] for item in items] == ["latest", "echo.pirate", "echo"]


async def test_a_deployment_that_is_not_there(site: Site, open_site: Open) -> None:
    for path in ("/v4/models/ecko/deployments", "/v4/models/echo/deployments/latest"):
        response = await site.client.get(path)
        assert (response.status_code, envelope(response)["code"]) == (404, "unknown_model")
    bad = await site.client.get("/v4/model-deployments?sort_by=weight:asc")
    assert (bad.status_code, envelope(bad)["param"]) == (422, "sort_by")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v4/models"),
        ("PATCH", "/v4/models/echo"),
        ("DELETE", "/v4/models/echo"),
        ("POST", "/v4/models/echo/deployments"),
        ("PATCH", "/v4/models/echo/deployments/echo"),
        ("DELETE", "/v4/models/echo/deployments/echo"),
        ("POST", "/v4/models/echo/deployments/echo/execute"),
    ],
)
async def test_models_are_not_managed_here(site: Site, method: str, path: str) -> None:
    response = await site.client.request(method, path, json={})
    assert (response.status_code, envelope(response)["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD"
