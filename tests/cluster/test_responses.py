"""OpenAI's Responses on real engines, compared with their chat completions."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.cluster.envelopes import openai_error_of
from tests.live import ALIAS, BASE, CROW, INSTRUCT, PIRATE, Server, parse_events

PATH, CHAT = "/v1/responses", "/v1/chat/completions"
# Of a model's own turns, one is given.
TURNS = [
    {"role": "user", "content": "France"},
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": "Italy"},
]
MODELS = (BASE, ALIAS, PIRATE, CROW, INSTRUCT)


def chat(live: Server, model: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
    fields = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 24}
    response = live.post(CHAT, **fields)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def respond(live: Server, model: str, **fields: Any) -> httpx.Response:
    fields = {"temperature": 0, "max_output_tokens": 24, **fields}
    response = live.post(PATH, model=model, **fields)
    assert response.status_code == 200, response.text
    return response


def text_of(answer: dict[str, Any]) -> str:
    """As the SDK's `output_text`."""
    return "".join(
        part["text"]
        for item in answer["output"]
        if item["type"] == "message"
        for part in item["content"]
        if part["type"] == "output_text"
    )


def usage_of(answer: dict[str, Any]) -> tuple[int, int, int]:
    usage = answer["usage"]
    return usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]


def counted(live: Server, response: httpx.Response) -> tuple[int, int, str]:
    """What a router has written down for a response."""
    record = live.record(response.headers["x-request-id"])
    return record["prompt_tokens"], record["completion_tokens"], record["outcome"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("messages", [TURNS[:1], TURNS], ids=["one", "three"])
def test_a_response_says_what_a_chat_says(
    live: Server, model: str, messages: list[dict[str, Any]]
) -> None:
    right = chat(live, model, messages)
    response = respond(live, model, input=messages)
    answer = response.json()
    assert (answer["object"], answer["model"]) == ("response", model)
    assert text_of(answer) == right["choices"][0]["message"]["content"]
    cut = right["choices"][0]["finish_reason"] == "length"
    assert answer["status"] == ("incomplete" if cut else "completed")
    usage = right["usage"]
    assert usage_of(answer) == tuple(
        usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    )
    assert counted(live, response) == (*usage_of(answer)[:2], "ok")


def test_instructions_are_the_systems_message(live: Server) -> None:
    messages = [{"role": "system", "content": "Spain"}, *TURNS[:1]]
    right = chat(live, CROW, messages)
    answer = respond(live, CROW, instructions="Spain", input="France").json()
    assert text_of(answer) == right["choices"][0]["message"]["content"]
    assert answer["instructions"] == "Spain"


@pytest.mark.parametrize("model", MODELS)
def test_a_stream_has_openais_events_in_their_order(live: Server, model: str) -> None:
    whole = respond(live, model, input=TURNS).json()
    response = respond(live, model, input=TURNS, stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "[DONE]" not in response.text
    events = parse_events(response.text)
    bodies = [event.json for event in events]
    assert [event.name for event in events] == [body["type"] for body in bodies]
    assert [body["sequence_number"] for body in bodies] == list(range(len(bodies)))
    deltas = [body["delta"] for body in bodies if body["type"] == "response.output_text.delta"]
    assert [body["type"].removeprefix("response.") for body in bodies] == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *(("output_text.delta",) * len(deltas)),
        *("output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    assert "".join(deltas) == text_of(whole)
    first, last = bodies[0]["response"], bodies[-1]["response"]
    assert (first["status"], first["model"], first["usage"]) == ("in_progress", model, None)
    assert (last["status"], last["model"], last["id"]) == (whole["status"], model, first["id"])
    assert text_of(last) == text_of(whole)
    assert usage_of(last) == usage_of(whole)
    assert counted(live, response) == (*usage_of(last)[:2], "ok")


def test_what_a_response_says_can_be_sent_back(live: Server) -> None:
    """A conversation without stored state: the items of an answer are input of the next request."""
    first = respond(live, INSTRUCT, input=TURNS[:1]).json()
    said = {"role": "assistant", "content": text_of(first)}
    second = respond(live, INSTRUCT, input=[TURNS[0], *first["output"], TURNS[2]]).json()
    right = chat(live, INSTRUCT, [TURNS[0], said, TURNS[2]])
    assert text_of(second) == right["choices"][0]["message"]["content"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", [BASE, PIRATE])
def test_a_format_is_kept_to(live: Server, model: str, stream: bool) -> None:
    schema = {"type": "string", "enum": ["left", "right"]}
    form = {"type": "json_schema", "name": "way", "schema": schema}
    response = respond(live, model, input="France", text={"format": form}, stream=stream)
    answer = parse_events(response.text)[-1].json["response"] if stream else response.json()
    assert json.loads(text_of(answer)) in schema["enum"]


def test_log_probabilities_are_asked_for_as_openai_does(live: Server) -> None:
    include = ["message.output_text.logprobs"]
    answer = respond(live, BASE, input="France", include=include, top_logprobs=2).json()
    logprobs = answer["output"][0]["content"][0]["logprobs"]
    assert len(logprobs) == answer["usage"]["output_tokens"]
    assert {len(token["top_logprobs"]) for token in logprobs} == {2}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", [BASE, PIRATE])
@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "not stored"),
        ({"conversation": "conv_1"}, "conversation", "not stored"),
        ({"background": True}, "background", "must be false"),
        ({"store": True}, "store", "must be false"),
        ({"store": True, "background": True}, "background", "must be false"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "not stored"),
        ({"input": [{"type": "item_reference", "id": "i"}]}, "input", "not stored"),
        ({"max_output_tokens": 0}, "max_output_tokens", "at least 1"),
        ({"temperature": -1}, "temperature", "non-negative"),
        ({"stop_token_ids": [10**9]}, "stop_token_ids", "out-of-vocab"),
        ({"top_k": 2**70}, "top_k", "64 bits"),
        ({"input": "people " * 1500}, None, "maximum context length"),
        ({"input": 5}, None, "input"),
        ({"input": []}, None, "empty conversation"),
        ({"input": [{"role": "user", "content": "a"}] * 1025}, "input", "1025 messages"),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "x"}}}},
            None,
            "Invalid type",
        ),
        ({"tool_choice": "required"}, "tool_choice", "'tools'"),
    ],
)
def test_a_bad_request_is_400_before_the_first_byte(
    live: Server,
    model: str,
    stream: bool,
    fields: dict[str, Any],
    param: str | None,
    said: str,
) -> None:
    response = live.post(PATH, **{"model": model, "input": "France", "stream": stream, **fields})
    error = openai_error_of(response, 400)
    assert said in error["message"], error
    if param is not None:
        assert error["param"] == param
    assert response.headers["x-should-retry"] == "false"
    assert response.headers["content-type"] == "application/json"


def test_a_response_that_was_given_is_not_found_afterwards(live: Server) -> None:
    name = respond(live, BASE, input="France").json()["id"]
    for method, path in (
        ("GET", f"{PATH}/{name}"),
        ("DELETE", f"{PATH}/{name}"),
        ("POST", f"{PATH}/{name}/cancel"),
    ):
        error = openai_error_of(live.client.request(method, live.url + path), 404)
        assert f"no response '{name}'" in error["message"]
