"""LLM Engine's paths: what reaches the engine, what comes back, what is refused."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from serving.errors import InvalidRequest
from tests.conftest import Eventually
from tests.gateway.conftest import Open, Site, events
from tests.gateway.talking import SAYS, TalkingEngine
from tests.gateway.test_refusals import envelope

SYNC, STREAM = "/v1/llm/completions-sync", "/v1/llm/completions-stream"
# What the client sends where the caller has set nothing.
DEFAULTS = {
    "max_new_tokens": 20,
    "temperature": 0.2,
    "stop_sequences": None,
    "return_token_log_probs": False,
    "presence_penalty": None,
    "frequency_penalty": None,
    "top_k": None,
    "top_p": None,
    "include_stop_str_in_output": None,
    "guided_json": None,
    "guided_regex": None,
    "guided_choice": None,
    "guided_grammar": None,
    "skip_special_tokens": True,
}


@pytest.fixture
async def talking(open_site: Open) -> Site:
    return await open_site(double=TalkingEngine)


async def ask(site: Site, path: str, model: str = "echo", **fields: Any) -> httpx.Response:
    body = {"prompt": "Hello", **DEFAULTS, **fields}
    return await site.client.post(path, params={"model_endpoint_name": model}, json=body)


def sent(site: Site) -> dict[str, Any]:
    engine = site.engines[0]
    assert isinstance(engine, TalkingEngine)
    return engine.bodies[-1]


@pytest.mark.parametrize(
    ("model", "adapter"),
    [("echo", None), ("echo.pirate", "echo.pirate"), ("latest", "echo.pirate")],
)
async def test_whole(talking: Site, model: str, adapter: str | None) -> None:
    response = await ask(talking, SYNC, model)
    assert response.json() == {
        "request_id": response.headers["x-request-id"],
        "output": {
            "text": "".join(SAYS),
            "num_prompt_tokens": 7,
            "num_completion_tokens": 3,
            "tokens": None,
        },
    }
    (call,) = talking.engines[0].calls
    assert (call.adapter.id if call.adapter else None) == adapter
    asked = {"model": model, "prompt": "Hello", "max_tokens": 20, "temperature": 0.2}
    assert sent(talking) == asked
    assert talking.counted(endpoint=SYNC, outcome="ok") == 1


async def test_a_stream_counts_as_it_goes(talking: Site) -> None:
    response = await ask(talking, STREAM)
    said = [data for _, data in events(response.text)]
    assert [data["output"]["text"] for data in said] == [*SAYS, ""]
    assert [data["output"]["finished"] for data in said] == [False, False, False, True]
    assert [data["output"]["num_completion_tokens"] for data in said] == [1, 2, 3, 3]
    assert {data["output"]["num_prompt_tokens"] for data in said} == {7}
    assert {data["request_id"] for data in said} == {response.headers["x-request-id"]}
    assert {data["error"] for data in said} == {None}
    options = {"include_usage": True, "continuous_usage_stats": True}
    assert sent(talking)["stream_options"] == options


async def test_probabilities_of_tokens(talking: Site) -> None:
    whole = (await ask(talking, SYNC, return_token_log_probs=True)).json()
    assert whole["output"]["tokens"] == [{"token": "".join(SAYS), "log_prob": -0.5}]
    assert sent(talking)["logprobs"] == 0
    stream = await ask(talking, STREAM, return_token_log_probs=True)
    tokens = [data["output"]["token"] for _, data in events(stream.text)]
    assert tokens == [*({"token": word, "log_prob": -0.5} for word in SAYS), None]


async def test_every_field(talking: Site) -> None:
    await ask(
        talking,
        SYNC,
        temperature=0,
        stop_sequences=["."],
        presence_penalty=1,
        frequency_penalty=2,
        top_k=3,
        top_p=1,
        include_stop_str_in_output=True,
        skip_special_tokens=False,
        guided_choice=["yes", "no"],
    )
    assert sent(talking) == {
        "model": "echo",
        "prompt": "Hello",
        "max_tokens": 20,
        "temperature": 0,
        "stop": ["."],
        "presence_penalty": 1,
        "frequency_penalty": 2,
        "top_k": 3,
        "top_p": 1,
        "include_stop_str_in_output": True,
        "skip_special_tokens": False,
        "structured_outputs": {"choice": ["yes", "no"]},
    }
    for kind, value in (("json", {"type": "object"}), ("regex", "a+"), ("grammar", "root ::= x")):
        await ask(talking, SYNC, **{f"guided_{kind}": value}, top_k=-1)
        assert sent(talking)["structured_outputs"] == {kind: value}
        assert "top_k" not in sent(talking)


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"prompt": None}, 422, "prompt"),
        ({"prompt": ["a", "b"]}, 422, "prompt"),
        ({"max_new_tokens": None}, 422, "max_new_tokens"),
        ({"max_new_tokens": 0}, 422, "max_new_tokens"),
        ({"max_new_tokens": 10**30}, 422, "max_new_tokens"),
        ({"temperature": 1.5}, 422, "temperature"),
        ({"top_p": 0}, 422, "top_p"),
        ({"top_k": -2}, 422, "top_k"),
        ({"presence_penalty": -1}, 422, "presence_penalty"),
        ({"stop_sequences": [""]}, 422, "stop_sequences.0"),
        ({"stop_sequences": ["x"] * 17}, 422, "stop_sequences"),
        ({"guided_json": "x"}, 422, "guided_json"),
        ({"guided_json": {}, "guided_regex": "x"}, 422, "guided_regex"),
        ({"max_tokens": 5}, 422, "max_tokens"),
        ({"model": "ecko"}, 404, "model"),
        ({"model": ""}, 422, "model_endpoint_name"),
        ({"model": "x" * 257}, 422, "model_endpoint_name"),
    ],
)
@pytest.mark.parametrize("path", [SYNC, STREAM])
async def test_a_bad_request(
    talking: Site, path: str, fields: dict[str, Any], status: int, param: str
) -> None:
    response = await ask(talking, path, **fields)
    error = envelope(response)
    assert (response.status_code, error["param"]) == (status, param)
    assert talking.counted(outcome="rejected") == talking.counted() == 1
    assert not talking.engines[0].calls


async def test_without_a_query(talking: Site) -> None:
    response = await talking.client.post(SYNC, json={"prompt": "x", "max_new_tokens": 1})
    assert (response.status_code, envelope(response)["param"]) == (422, "model_endpoint_name")


async def test_a_failure_inside_a_stream(open_site: Open, eventually: Eventually) -> None:
    """It is an event of the client's own type."""
    site = await open_site(double=TalkingEngine, engine={"interval_s": 0.1})
    body = {"prompt": "x", "max_new_tokens": 5}
    path = f"{STREAM}?model_endpoint_name=echo"
    async with site.wire() as client, client.stream("POST", path, json=body) as response:
        lines = response.aiter_lines()
        assert json.loads((await anext(lines))[6:])["output"]["text"] == SAYS[0]
        site.engines[0].dead = True
        *_, last = [line async for line in lines if line]
    failure = json.loads(last.removeprefix("data: "))
    assert failure["output"] is None
    assert failure["request_id"] == response.headers["x-request-id"]
    assert failure["error"]["status_code"] == 503
    assert set(failure["error"]["content"]) == {"error", "timestamp"}
    await eventually(lambda: site.idle)


async def test_model_endpoints(site: Site) -> None:
    listed = (await site.client.get("/v1/llm/model-endpoints")).json()["model_endpoints"]
    assert [at["name"] for at in listed] == ["echo", "echo.pirate", "latest"]
    assert [at["model_name"] for at in listed] == ["echo", "echo", "echo.pirate"]
    assert {at["status"] for at in listed} == {"READY"}
    for at in listed:
        found = await site.client.get(f"/v1/llm/model-endpoints/{at['name']}")
        assert found.json() == at
    missing = await site.client.get("/v1/llm/model-endpoints/ecko")
    assert (missing.status_code, envelope(missing)["code"]) == (404, "unknown_model")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/llm/model-endpoints"),
        ("PUT", "/v1/llm/model-endpoints/echo"),
        ("DELETE", "/v1/llm/model-endpoints/echo"),
        ("POST", "/v1/llm/model-endpoints/download"),
    ],
)
async def test_models_are_not_managed_here(site: Site, method: str, path: str) -> None:
    response = await site.client.request(method, path, json={})
    assert (response.status_code, envelope(response)["code"]) == (405, "method_not_allowed")


async def test_paths_that_are_not_there(site: Site) -> None:
    response = await site.client.get("/v1/llm/fine-tunes")
    assert (response.status_code, envelope(response)["code"]) == (404, "not_found")


async def test_what_the_app_refuses_names_the_caller_s_field(open_site: Open) -> None:
    site = await open_site(double=Refusing)
    response = await ask(site, SYNC)
    error = envelope(response)
    assert (error["param"], error["message"]) == ("max_new_tokens", "'max_new_tokens': too many")


class Refusing(TalkingEngine):
    async def http(self, *args: Any, **kwargs: Any) -> None:
        raise InvalidRequest("'max_tokens': too many", param="max_tokens")
