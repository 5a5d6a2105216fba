"""The anthropic package, unmodified: messages whole and streamed, counted and refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.conftest import Script
from tests.live import ALIAS, BASE, CROW, INSTRUCT, PIRATE, Server

MODELS = (BASE, ALIAS, PIRATE, CROW, INSTRUCT)
ASKED: dict[str, Any] = {
    "max_tokens": 40,
    "messages": [{"role": "user", "content": "France"}],
}
# The SDK has no parameter for it any more, as Anthropic's newest models take none.
GREEDY = {"temperature": 0}
EVENTS = ["message_start", "content_block_start", "content_block_delta"]
EVENTS += ["content_block_stop", "message_delta", "message_stop"]


def each(do: str, **more: Any) -> dict[str, Any]:
    """The same call to every kind of model."""
    asked = {**ASKED, "extra_body": GREEDY, **more}
    return {"calls": [{"do": do, "model": model, **asked} for model in MODELS]}


def without_repeats(kinds: list[str]) -> list[str]:
    return [kind for at, kind in enumerate(kinds) if kinds[at - 1 : at] != [kind]]


def chat(live: Server, model: str) -> dict[str, Any]:
    answer: dict[str, Any] = live.post(
        "/v1/chat/completions", model=model, **ASKED, **GREEDY
    ).json()
    return answer


def test_create(live: Server, sdk_script: Script) -> None:
    for model, found in zip(MODELS, sdk_script("anthropic", each("create")), strict=True):
        right, answer = chat(live, model), found["answer"]
        (block,) = answer["content"]
        assert (block["type"], block["text"]) == ("text", right["choices"][0]["message"]["content"])
        assert (answer["type"], answer["role"], answer["model"]) == ("message", "assistant", model)
        assert answer["stop_reason"] in ("end_turn", "max_tokens")
        assert answer["usage"]["input_tokens"] == right["usage"]["prompt_tokens"]
        assert answer["usage"]["output_tokens"] == right["usage"]["completion_tokens"]
        entry = live.record(found["request_id"])
        assert (entry["outcome"], entry["model"]) == ("ok", model)
        assert entry["prompt_tokens"] == right["usage"]["prompt_tokens"]


def test_stream(live: Server, sdk_script: Script) -> None:
    whole = sdk_script("anthropic", each("create"))
    for do in ("stream", "events", "text_stream"):
        for found, one in zip(sdk_script("anthropic", each(do)), whole, strict=True):
            right = one["answer"]
            if do == "events":
                assert without_repeats(found["events"]) == EVENTS
            elif do == "text_stream":
                assert "".join(found["texts"]) == right["content"][0]["text"]
                assert live.record(found["request_id"])["outcome"] == "ok"
            else:
                answer = found["answer"]
                assert answer["content"][0]["text"] == right["content"][0]["text"]
                assert answer["stop_reason"] == right["stop_reason"]
                assert answer["model"] == right["model"]
                for name in ("input_tokens", "output_tokens"):
                    assert answer["usage"][name] == right["usage"][name]


def test_the_beta_client_and_what_else_it_sends(sdk_script: Script) -> None:
    more = {"system": [{"type": "text", "text": "Be brief."}], "stop_sequences": ["a"]}
    for found in sdk_script("anthropic", each("beta", betas=["some-beta-2025-01-01"], **more)):
        answer = found["answer"]
        assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", "a")
        assert "a" not in answer["content"][0]["text"]


def test_count_tokens(live: Server, sdk_script: Script) -> None:
    calls = [
        {"do": "count_tokens", "model": model, "messages": ASKED["messages"]} for model in MODELS
    ]
    for model, found in zip(MODELS, sdk_script("anthropic", {"calls": calls}), strict=True):
        assert found["tokens"] == chat(live, model)["usage"]["prompt_tokens"]


@pytest.mark.parametrize("do", ["create", "stream", "count_tokens"])
def test_errors_are_the_sdks_own(sdk_script: Script, do: str) -> None:
    asked = {"do": do, **(ASKED if do != "count_tokens" else {"messages": ASKED["messages"]})}
    calls = [
        {**asked, "model": "claude-nothing"},
        {**asked, "model": BASE, "messages": [{"role": "tool", "content": "a"}]},
        {**asked, "model": BASE, "messages": []},
        {**asked, "model": BASE, "tools": [{"name": "f", "input_schema": {"$ref": "#"}}]},
    ]
    names = ["NotFoundError", *["BadRequestError"] * 3]
    for found, name in zip(sdk_script("anthropic", {"calls": calls}), names, strict=True):
        assert found["error"] == name
        kind = {"NotFoundError": "not_found_error"}.get(name, "invalid_request_error")
        assert found["kind"] == kind
        assert set(found["body"]) == {"type", "error", "request_id"}
        assert set(found["body"]["error"]) == {"type", "message"}
        assert found["body"]["request_id"] == found["request_id"]
    (found,) = sdk_script("anthropic", {"calls": [{**asked, "model": BASE}]}, key="sk-wrong")
    assert (found["error"], found["kind"]) == ("AuthenticationError", "authentication_error")
