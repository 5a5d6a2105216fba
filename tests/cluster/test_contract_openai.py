"""OpenAI's fields as far as only a real engine shows them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.cluster.envelopes import openai_error_of
from tests.live import ALIAS, BASE, HAIKU, INSTRUCT, KEY, PIRATE, Server, parse_events

GREEDY = {"temperature": 0}


@pytest.mark.parametrize("model", [BASE, ALIAS, PIRATE, HAIKU])
@pytest.mark.parametrize("stream", [False, True])
def test_openai_answers_name_the_model_that_was_asked_for(
    live: Server, model: str, stream: bool
) -> None:
    response = live.post(
        "/v1/completions", model=model, prompt="A spider has", max_tokens=4, stream=stream
    )
    assert response.status_code == 200, response.text
    if stream:
        *events, done = parse_events(response.text)
        assert done.data == "[DONE]"
        assert {event.json["model"] for event in events} == {model}
        assert all(event.name is None for event in events)
    else:
        assert response.json()["model"] == model


def test_create_completion_names_the_model_that_answered(live: Server) -> None:
    for asked, answered in ((BASE, BASE), (ALIAS, BASE), (PIRATE, PIRATE)):
        metadata = live.complete(asked, "A spider has").json()["completion"]["response_metadata"]
        assert metadata == {"model": answered}


def test_n_gives_that_many_choices(live: Server) -> None:
    answer = live.post(
        "/v1/completions",
        model=BASE,
        prompt="zq xv",
        max_tokens=30,
        n=3,
        temperature=1,
        seed=1,
    ).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len({choice["text"] for choice in answer["choices"]}) > 1


def test_a_seed_repeats_and_another_does_not(live: Server) -> None:
    def text(seed: int) -> str:
        body = {"model": PIRATE, "prompt": "zq xv", "max_tokens": 40, "temperature": 1}
        answer = live.post("/v1/completions", **body, seed=seed).json()
        return str(answer["choices"][0]["text"])

    assert len({text(7) for _ in range(4)}) == 1
    assert len({text(seed) for seed in range(6)}) > 1


def test_logprobs(live: Server) -> None:
    answer = live.post(
        "/v1/completions", model=BASE, prompt="A spider has", max_tokens=5, logprobs=3, **GREEDY
    ).json()
    found = answer["choices"][0]["logprobs"]
    assert len(found["tokens"]) == len(found["token_logprobs"]) == 5
    assert "".join(found["tokens"]) == answer["choices"][0]["text"]
    for token, value, top in zip(
        found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True
    ):
        assert len(top) == 3
        assert top[token] == max(top.values()) == value <= 0
    chat = live.post(
        "/v1/chat/completions",
        model=INSTRUCT,
        messages=[{"role": "user", "content": "Hello!"}],
        logprobs=True,
        top_logprobs=2,
        **GREEDY,
    ).json()
    content = chat["choices"][0]["logprobs"]["content"]
    assert "".join(item["token"] for item in content).startswith(" Hello!")
    assert all(len(item["top_logprobs"]) == 2 for item in content)


def test_a_json_schema_is_kept_to(live: Server) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}, "size": {"enum": [1, 2]}},
        "required": ["colour", "size"],
        "additionalProperties": False,
    }
    answer = live.post(
        "/v1/chat/completions",
        model=INSTRUCT,
        messages=[{"role": "user", "content": "Hello!"}],
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        max_tokens=800,
        **GREEDY,
    ).json()
    assert answer["choices"][0]["finish_reason"] == "stop"
    found = json.loads(answer["choices"][0]["message"]["content"])
    assert found["colour"] in ("red", "blue")
    assert found["size"] in (1, 2)
    assert len(found) == 2


def test_a_tool_that_is_named_is_called(live: Server) -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "paint",
            "parameters": {
                "type": "object",
                "properties": {"colour": {"enum": ["red", "blue"]}},
                "required": ["colour"],
                "additionalProperties": False,
            },
        },
    }
    body = {
        "model": INSTRUCT,
        "messages": [{"role": "user", "content": "Hello!"}],
        "tools": [tool],
        "max_tokens": 800,
        **GREEDY,
    }
    named = {"type": "function", "function": {"name": "paint"}}
    answer = live.post("/v1/chat/completions", **body, tool_choice=named)
    (call,) = answer.json()["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "paint"
    assert json.loads(call["function"]["arguments"])["colour"] in ("red", "blue")
    # It is free to call none.
    free = live.post("/v1/chat/completions", **body).json()
    assert free["choices"][0]["message"]["content"].startswith(" Hello!")


def test_tools_for_a_model_without_a_parser_are_refused_by_name(live: Server) -> None:
    tool = {"type": "function", "function": {"name": "paint"}}
    body = {"messages": [{"role": "user", "content": "France"}], "tools": [tool], "max_tokens": 5}
    for model in (BASE, ALIAS, PIRATE):
        error = openai_error_of(live.post("/v1/chat/completions", model=model, **body), 400)
        assert error["param"] == "tools"
        assert "`tool_parser`" in error["message"]
        answer = live.post("/v1/chat/completions", model=model, **body, tool_choice="none")
        assert answer.status_code == 200


def test_a_usage_event_only_for_those_who_ask(live: Server) -> None:
    body = {"model": BASE, "prompt": "A spider has", "max_tokens": 20, "stream": True, **GREEDY}
    *events, _ = parse_events(live.post("/v1/completions", **body).text)
    assert all(event.json.get("usage") is None for event in events)
    options = {"include_usage": True}
    *events, done = parse_events(live.post("/v1/completions", **body, stream_options=options).text)
    assert done.data == "[DONE]"
    assert events[-1].json["choices"] == []
    assert events[-1].json["usage"]["completion_tokens"] == 9


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "nope", "prompt": "x"}, 404),
        ({"model": BASE, "prompt": "x", "max_tokens": -1}, 400),
        ({"model": BASE, "prompt": "x", "temperature": -1}, 400),
        ({"model": BASE, "prompt": "Once upon a time " * 400, "max_tokens": 4}, 400),
        ({"model": BASE, "prompt": "x", "max_tokens": 4000}, 400),
        ({"model": PIRATE, "prompt": "x", "max_tokens": "many"}, 400),
        ({"prompt": "x"}, 422),
        ({"model": BASE}, 400),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_openai_errors_have_openai_s_envelope(
    live: Server, body: dict[str, Any], status: int, stream: bool
) -> None:
    response = live.post("/v1/completions", **body, stream=stream)
    openai_error_of(response, status)
    assert response.headers["content-type"] == "application/json"


def test_an_openai_endpoint_refuses_a_wrong_key(live: Server) -> None:
    url = f"{live.url}/v1/completions"
    body = {"model": BASE, "prompt": "x"}
    response = httpx.post(url, json=body, headers={"authorization": "Bearer no"}, trust_env=False)
    assert openai_error_of(response, 401)["code"] == "unauthenticated"
    right = {"authorization": f"Bearer {KEY}"}
    assert httpx.post(url, json=body, headers=right, trust_env=False).status_code == 200


def test_the_models_list_has_every_id(live: Server) -> None:
    models = {model["id"]: model for model in live.get(f"{live.url}/v1/models")["data"]}
    assert {BASE, ALIAS, INSTRUCT, PIRATE, HAIKU} <= set(models)
    assert models[PIRATE]["parent"] == BASE
    assert models[ALIAS]["root"] == BASE
    one = live.get(f"{live.url}/v1/models/{PIRATE}")
    # Each router gives the time of its own start.
    assert one | {"created": 0} == models[PIRATE] | {"created": 0}
