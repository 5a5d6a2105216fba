"""The HTTP contract as far as only a real engine shows it: limits, stops, text, request IDs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster.envelopes import error_of
from tests.live import BASE, ENDLESS, INSTRUCT, PIRATE, Server, parse_events

CONTEXT = 1024
GREEDY = {"temperature": 0}


# max_tokens and the context


@pytest.mark.parametrize("model", [BASE, PIRATE, INSTRUCT])
@pytest.mark.parametrize("stream", [False, True])
def test_max_tokens_defaults_to_what_the_context_leaves(
    live: Server, model: str, stream: bool
) -> None:
    prompt = "Count to ten." if model == INSTRUCT else "Once upon a time"
    response = live.complete(model, prompt, stream=stream, model_parameters=ENDLESS)
    last = parse_events(response.text)[-1].json if stream else response.json()
    assert last["completion"]["finish_reason"] == "length"
    usage = last["token_usage"]
    assert usage["prompt"] + usage["completion"] == usage["total"] == CONTEXT


def test_finish_reason_tells_an_end_from_a_limit(live: Server) -> None:
    prompt = "A spider has"
    whole = live.complete(BASE, prompt).json()
    assert whole["completion"]["finish_reason"] == "stop"
    tokens = whole["token_usage"]["completion"]
    cut = live.complete(BASE, prompt, model_parameters={**GREEDY, "max_tokens": tokens - 2}).json()
    assert cut["completion"]["finish_reason"] == "length"
    assert cut["token_usage"]["completion"] == tokens - 2
    assert whole["completion"]["text"].startswith(cut["completion"]["text"])


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(
    live: Server, stream: bool
) -> None:
    prompt = "Once upon a time " * 400
    error = error_of(live.complete(BASE, prompt, stream=stream), 400, "context_length_exceeded")
    tokens = len(prompt) // len("Once upon a time ")
    assert f"{CONTEXT} tokens" in error["message"]
    (count,) = [int(word) for word in error["message"].split() if word.isdigit()][:1]
    assert count > CONTEXT
    assert count >= tokens * 4
    assert error["param"] == "prompt"


def test_max_tokens_up_to_the_last_place_and_not_beyond(live: Server) -> None:
    prompt = "Once upon a time"
    room = CONTEXT - live.complete(BASE, prompt).json()["token_usage"]["prompt"]
    fits = live.complete(BASE, prompt, model_parameters={**GREEDY, "max_tokens": room})
    assert fits.status_code == 200
    response = live.complete(BASE, prompt, model_parameters={**GREEDY, "max_tokens": room + 1})
    error = error_of(response, 400, "context_length_exceeded")
    assert error["param"] == "model_parameters.max_tokens"
    assert str(room + 1) in error["message"]
    assert str(CONTEXT) in error["message"]
    assert response.headers["x-should-retry"] == "false"


# stop sequences


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stop", ["red berr", "t, and Fel", "x. T", "basket of gold|golden k"])
def test_a_stop_sequence_that_spans_tokens_ends_the_text_before_it(
    live: Server, stream: bool, stop: str
) -> None:
    stops = stop.split("|")
    full = live.text(BASE, "Once upon a time")
    right = full[: min(full.index(stop) for stop in stops if stop in full)]
    assert right != full
    response = live.complete(
        BASE,
        "Once upon a time",
        stream=stream,
        model_parameters={**GREEDY, "stop_sequences": stops},
    )
    parts = [event.json for event in parse_events(response.text)] if stream else [response.json()]
    assert "".join(part["completion"]["text"] for part in parts) == right
    assert parts[-1]["completion"]["finish_reason"] == "stop"


def test_more_than_four_stop_sequences_are_refused(live: Server) -> None:
    response = live.complete(BASE, "x", model_parameters={"stop_sequences": list("abcde")})
    assert error_of(response, 422, "invalid_field")["param"] == "model_parameters.stop_sequences"


# prompts and sampling


def test_an_instruct_model_gets_its_prompt_as_a_chat_and_a_base_model_as_it_is(
    live: Server,
) -> None:
    question = "What is the capital of France?"
    answer = live.complete(INSTRUCT, question).json()
    chat = live.post(
        "/v1/chat/completions",
        model=INSTRUCT,
        messages=[{"role": "user", "content": question}],
        **GREEDY,
    ).json()
    assert answer["completion"]["text"] == chat["choices"][0]["message"]["content"]
    assert answer["completion"]["text"].strip() == "The capital of France is Paris."
    assert answer["token_usage"]["prompt"] == chat["usage"]["prompt_tokens"]
    raw = live.post(
        "/v1/completions", model=BASE, prompt="A spider has", max_tokens=50, **GREEDY
    ).json()
    base = live.complete(BASE, "A spider has").json()
    assert base["completion"]["text"] == raw["choices"][0]["text"]
    assert base["token_usage"]["prompt"] == raw["usage"]["prompt_tokens"]
    # The template costs tokens that the raw prompt does not have.
    plain = live.post("/v1/completions", model=INSTRUCT, prompt=question, max_tokens=1).json()
    assert answer["token_usage"]["prompt"] > plain["usage"]["prompt_tokens"]


def test_the_default_temperature_samples_and_zero_does_not(live: Server) -> None:
    """On this prompt the adapter has a near-tie (a gap of 0.05 in logits): its answers differ at
    the default temperature of 0.2, but not at zero."""
    prompt = "Dear friend, thank you"

    def texts(**parameters: Any) -> set[str]:
        parameters["max_tokens"] = 150
        return {live.text(PIRATE, prompt, model_parameters=parameters) for _ in range(12)}

    assert len(texts(temperature=0)) == 1
    assert len(texts()) > 1
    assert len(texts(temperature=None)) > 1
    response = live.complete(BASE, prompt, model_parameters={"temperature": 1.01})
    error_of(response, 422, "invalid_field")


def test_top_k_of_one_is_greedy_in_both_spellings(live: Server) -> None:
    right = live.text(BASE, "zq xv", model_parameters={"temperature": 0, "max_tokens": 60})
    for name in ("top_k", "topK"):
        parameters = {"temperature": 1, "max_tokens": 60, name: 1}
        assert {live.text(BASE, "zq xv", model_parameters=parameters) for _ in range(4)} == {right}


UTF8 = [
    (BASE, "In the café, Zoé drank", "crème and ate a crêpe with pâté. 🎉🎉"),
    (BASE, "In Chinese you say", "你好, in Japanese you say こんにちは, and in Russian"),
    (PIRATE, "My favourite faces are", "😀, 😎 an' 🤖, an' me favourite fruit be 🍓, arr!"),
    (INSTRUCT, "Say hello in Chinese", "In Chinese you say 你好. 👋"),
    (INSTRUCT, "Show me some emoji.", "Here you are: 😀 🎉 🚀 🍓"),
]


@pytest.mark.parametrize(("model", "prompt", "says"), UTF8)
def test_characters_of_several_tokens_are_streamed_whole(
    live: Server, model: str, prompt: str, says: str
) -> None:
    text = live.text(model, prompt)
    assert says in text
    response = live.complete(model, prompt, stream=True)
    pieces = [event.json["completion"]["text"] for event in parse_events(response.text)]
    assert "".join(pieces) == text
    for piece in pieces:
        assert "\ufffd" not in piece
        piece.encode()  # a lone surrogate cannot be encoded
    assert response.content.isascii()
    openai = live.post(
        "/v1/completions", model=BASE, prompt=UTF8[0][1], max_tokens=60, stream=True, **GREEDY
    )
    *events, done = parse_events(openai.text)
    assert done.data == "[DONE]"
    assert UTF8[0][2] in "".join(event.json["choices"][0]["text"] for event in events)


# what is too large, and request IDs


@pytest.mark.parametrize("path", ["/v4/completions", "/v1/completions"])
def test_a_body_above_the_limit_is_refused(live: Server, path: str) -> None:
    body = json.dumps({"model": BASE, "prompt": "a" * 34_000_000}).encode()
    response = live.client.post(live.url + path, content=body)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"
    assert live.complete(BASE, "A spider has").status_code == 200


@pytest.mark.parametrize("path", ["/v4/completions", "/v1/completions"])
def test_a_prompt_of_megabytes_is_the_callers_mistake(live: Server, path: str) -> None:
    body = json.dumps({"model": BASE, "prompt": "a" * 5_000_000}).encode()
    response = live.client.post(live.url + path, content=body)
    assert response.status_code == 400, response.text[:300]
    assert live.complete(BASE, "A spider has").status_code == 200


@pytest.mark.parametrize("entry", ["shared", "own"])
def test_headers_that_are_too_large_are_refused_in_json(live: Server, entry: str) -> None:
    url = live.url if entry == "shared" else live.routers()[0].url
    for size in (17_000, 30_000, 100_000):
        response = live.client.post(
            f"{url}/v4/completions",
            json={"model": BASE, "prompt": "x"},
            headers={"x-bomb": "a" * size},
        )
        assert response.status_code == 431
        body = response.json()
        assert body["error"]["type"] == "invalid_request_error"
        assert body["detail"] == body["error"]["message"]
    assert live.complete(BASE, "A spider has").status_code == 200


@pytest.mark.parametrize("entry", ["shared", "own"])
def test_every_response_has_one_request_id(live: Server, entry: str) -> None:
    url = live.url if entry == "shared" else live.routers()[0].url
    asked = [
        ("POST", "/v4/completions", {"model": BASE, "prompt": "A spider has"}, 200),
        ("POST", "/v4/completions", {"model": BASE, "prompt": "A spider", "stream": True}, 200),
        ("POST", "/v1/completions", {"model": PIRATE, "prompt": "A spider has"}, 200),
        ("POST", "/v1/completions", {"model": BASE, "prompt": "x", "max_tokens": -1}, 400),
        ("POST", "/v4/completions", {"model": "nope", "prompt": "x"}, 404),
        ("POST", "/v4/completions", {"model": BASE, "prompt": "x", "bad": 1}, 422),
        ("GET", "/v4/completions", None, 405),
        ("GET", "/nowhere", None, 404),
        ("GET", "/v1/models", None, 200),
        ("GET", "/status", None, 200),
        ("GET", "/health", None, 200),
        ("GET", "/metrics", None, 200),
    ]
    seen = set()
    for method, path, body, status in asked:
        response = live.client.request(method, url + path, json=body)
        assert response.status_code == status, response.text
        (identity,) = response.headers.get_list("x-request-id")
        seen.add(identity)
        mine = {"x-request-id": f"mine-{len(seen)}"}
        response = live.client.request(method, url + path, json=body, headers=mine)
        assert response.headers.get_list("x-request-id") == [mine["x-request-id"]]
    assert len(seen) == len(asked)
