"""Completions and chats of a base model, an alias and an adapter beside bare vLLM."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.beside.alike import (
    KIND,
    NO_TOOLS,
    ROUTED,
    UNKNOWN,
    Otherwise,
    assert_alike,
    assert_refused,
)
from tests.cluster.beside.sides import Served, Sides, asked
from tests.live import ALIAS, BASE, PIRATE

BESIDE = (BASE,)
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
MODELS = [Served(BASE, BASE, BASE), Served(ALIAS, BASE, BASE), Served(PIRATE, PIRATE, BASE)]
ASKED = {"prompt": "Once upon a time", "max_tokens": 16, "temperature": 0}
TURNS = [{"role": "user", "content": "France"}]
CHATTED = {"messages": TURNS, "max_tokens": 16, "temperature": 0}
SCHEMA = {"type": "string", "enum": ["left", "right"]}
FORM = {"type": "json_schema", "json_schema": {"name": "way", "schema": SCHEMA}}

PROMPTS: dict[str, dict[str, Any]] = {
    "a text": {},
    "token IDs": {"prompt": [5, 6, 7]},
    "several": {"prompt": ["Once upon", "A spider has"]},
    "lists of token IDs": {"prompt": [[5, 6], [7]]},
    "choices": {"n": 3, "temperature": 1, "seed": 1},
    "seed": {"temperature": 1, "seed": 7},
    "log probabilities": {"logprobs": 3},
    "echo": {"echo": True, "logprobs": 1},
    "echo alone": {"echo": True, "max_tokens": 0},
    "stop": {"stop": [" the", "x"], "include_stop_str_in_output": True},
    "stop token IDs": {"stop_token_ids": [7, 8, 9]},
    "an end": {"prompt": "A spider has", "max_tokens": 60},
    "without an end": {"ignore_eos": True, "max_tokens": 40},
    "at least": {"prompt": "A spider has", "min_tokens": 20, "max_tokens": 30},
    "bias": {"logit_bias": {"50": 10}},
    "bad words": {"bad_words": ["the", "there"]},
    "penalties": {"frequency_penalty": 1, "presence_penalty": 0.5, "repetition_penalty": 1.2},
    "token IDs returned": {"return_token_ids": True},
    "prompt log probabilities": {"prompt_logprobs": 1},
    "truncated": {"truncate_prompt_tokens": 3},
    "choice": {"structured_outputs": {"choice": ["north", "south"]}},
    "regex": {"structured_outputs": {"regex": "(ab|cd){2}"}},
    "schema": {"response_format": FORM},
    "user": {"user": "u"},
    "beams": {"n": 2, "use_beam_search": True, "max_tokens": 6},
}
CHATS: dict[str, dict[str, Any]] = {
    "one": {},
    "turns": {"messages": [*TURNS, {"role": "assistant", "content": "Paris."}, *TURNS]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Italy"}]}]},
    "choices": {"n": 2, "temperature": 1, "seed": 5},
    "log probabilities": {"logprobs": True, "top_logprobs": 2},
    "schema": {"response_format": FORM},
    "JSON": {"response_format": {"type": "json_object"}},
    "echo": {"echo": True},
    "continued": {
        "messages": [*TURNS, {"role": "assistant", "content": "Par"}],
        "add_generation_prompt": False,
        "continue_final_message": True,
    },
    "another role": {"messages": [{"role": "nobody", "content": "a"}]},
    "limit": {"max_tokens": None, "max_completion_tokens": 3},
    "token IDs returned": {"return_token_ids": True},
}
USAGE = {
    "at the end": {"include_usage": True},
    "all along": {"include_usage": True, "continuous_usage_stats": True},
    "none": {"include_usage": False},
}
BAD: dict[str, dict[str, Any]] = {
    "no prompt": {"prompt": None},
    "an empty prompt": {"prompt": ""},
    "an empty list": {"prompt": []},
    "a number": {"prompt": 5},
    "mixed": {"prompt": ["a", [5]]},
    "beyond the vocabulary": {"prompt": [10**8]},
    "a limit below none": {"max_tokens": -1},
    "a limit that is a text": {"max_tokens": "many"},
    "a limit above the context": {"max_tokens": 4000},
    "a prompt above the context": {"prompt": "Once upon a time " * 400},
    "temperature": {"temperature": -1},
    "top_p": {"top_p": 2},
    "top_k": {"top_k": -5},
    "n": {"n": 0},
    "log probabilities": {"logprobs": 99},
    "bias": {"logit_bias": {"a": 1}},
    "bias beyond": {"logit_bias": {"99999999": 1}},
    "regex": {"structured_outputs": {"regex": "("}},
    "stream options": {"stream_options": {"include_usage": True}, "stream": False},
    "stop": {"stop": 5},
    "a stop token": {"stop_token_ids": [10**9]},
    "at least": {"min_tokens": 99},
    "suffix": {"suffix": "x"},
    "an unknown model": {"model": "nothing"},
    "no model": {"model": None},
    "a model that is a number": {"model": 5},
    "prompt embeds": {"prompt": None, "prompt_embeds": "AAAA"},
}
BAD_CHATS: dict[str, dict[str, Any]] = {
    "no messages": {"messages": []},
    "messages are a text": {"messages": "France"},
    "no role": {"messages": [{"content": "a"}]},
    "top log probabilities": {"top_logprobs": 2},
    "top log probabilities above": {"logprobs": True, "top_logprobs": 99},
    "begun and continued": {"add_generation_prompt": True, "continue_final_message": True},
    "a format": {"response_format": {"type": "nothing"}},
    "a schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {"type": "nothing"}},
        }
    },
    "an unknown part": {"messages": [{"role": "user", "content": [{"type": "nothing"}]}]},
    "tools": {"tools": [{"type": "function", "function": {"name": "paint"}}]},
    "an unknown model": {"model": "nothing"},
}
# What vLLM does not stream.
WHOLE_ALONE = {"prompt_logprobs", "use_beam_search"}
# How a refusal differs from vLLM's, and why.
OTHERWISE = {
    "messages are a text": KIND,
    "tools": NO_TOOLS,
    "an unknown model": UNKNOWN,
    "no model": Otherwise(422, 200, "there is no model that is meant if none is named"),
    "a model that is a number": ROUTED,
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("served", "name"), asked(MODELS, PROMPTS))
def test_completions(sides: Sides, served: Served, name: str, stream: bool) -> None:
    sent = {**ASKED, **PROMPTS[name], "stream": stream}
    if stream and not WHOLE_ALONE.isdisjoint(sent):
        assert_refused(*sides.ask(COMPLETIONS, served, sent))
    else:
        assert_alike(sides, COMPLETIONS, served, sent)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("served", "name"), asked(MODELS, CHATS))
def test_chats(sides: Sides, served: Served, name: str, stream: bool) -> None:
    assert_alike(sides, CHAT, served, {**CHATTED, **CHATS[name], "stream": stream})


@pytest.mark.parametrize("name", USAGE)
@pytest.mark.parametrize("served", MODELS)
def test_usage_in_a_stream(sides: Sides, served: Served, name: str) -> None:
    for path, sent in ((COMPLETIONS, ASKED), (CHAT, CHATTED)):
        options = {"stream_options": USAGE[name]}
        assert_alike(sides, path, served, {**sent, **options, "stream": True})
        assert_refused(*sides.ask(path, served, {**sent, **options}))


@pytest.mark.parametrize(("served", "stream"), [(MODELS[0], False), (MODELS[2], True)])
@pytest.mark.parametrize(
    ("path", "name"),
    [*((COMPLETIONS, name) for name in BAD), *((CHAT, name) for name in BAD_CHATS)],
)
def test_refusals(sides: Sides, served: Served, path: str, name: str, stream: bool) -> None:
    sent = {**(ASKED if path == COMPLETIONS else CHATTED), "stream": stream}
    body = {**sent, **(BAD if path == COMPLETIONS else BAD_CHATS)[name]}
    assert_refused(*sides.ask(path, served, body), OTHERWISE.get(name))
