"""`/tokenize` and `/detokenize` beside bare vLLM."""

from __future__ import annotations

from typing import Any

import pytest

from local_models.make import RERANKER
from tests.cluster.beside.alike import KIND, UNKNOWN, Otherwise, assert_alike, assert_refused
from tests.cluster.beside.conftest import EMBED, WHISPER
from tests.cluster.beside.sides import Served, Sides, asked
from tests.live import ALIAS, BASE, INSTRUCT, PIRATE

BESIDE = (BASE, INSTRUCT, EMBED, RERANKER, WHISPER)
TOKENIZE, DETOKENIZE = "/tokenize", "/detokenize"
PLAIN = [Served(BASE, BASE, BASE), Served(ALIAS, BASE, BASE), Served(PIRATE, PIRATE, BASE)]
CALLS = Served(INSTRUCT, INSTRUCT, INSTRUCT)
OTHERS = [
    Served(EMBED, EMBED, EMBED),
    Served(RERANKER, RERANKER, RERANKER),
    Served(WHISPER, WHISPER, WHISPER),
]
TEXT = "This is a test prompt. 你好"
TURNS = [
    {"role": "user", "content": "Hi there!"},
    {"role": "assistant", "content": "Nice to meet you!"},
    {"role": "user", "content": "Can I ask a question?"},
]
BEGUN = [*TURNS, {"role": "assistant", "content": "Sure,"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"location": {"type": "string"}}},
    },
}
TEXTS: dict[str, dict[str, Any]] = {
    "a text": {"prompt": TEXT},
    "an empty text": {"prompt": ""},
    "without special tokens": {"prompt": TEXT, "add_special_tokens": False},
    "special tokens": {"prompt": TEXT, "add_special_tokens": True},
    "strings": {"prompt": TEXT, "return_token_strs": True},
    "longer than the context": {"prompt": "people " * 400},
}
CHATS: dict[str, dict[str, Any]] = {
    "a chat": {"messages": TURNS},
    "not begun": {"messages": TURNS, "add_generation_prompt": False},
    "with special tokens": {"messages": TURNS, "add_special_tokens": True},
    "continued": {
        "messages": BEGUN,
        "add_generation_prompt": False,
        "continue_final_message": True,
    },
    "tools": {"messages": TURNS[:1], "tools": [TOOL]},
    "strings of a chat": {"messages": TURNS, "return_token_strs": True},
}
BAD: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a number": {"prompt": 5},
    "a list": {"prompt": [TEXT]},
    "messages are a text": {"messages": "a"},
    "begun and continued": {
        "messages": BEGUN,
        "add_generation_prompt": True,
        "continue_final_message": True,
    },
    "a template of its own": {"messages": TURNS, "chat_template": "{{ messages[0].content }}"},
    "an unknown model": {"prompt": TEXT, "model": "nothing"},
}
TOKENS: dict[str, dict[str, Any]] = {
    "tokens": {"tokens": [5, 6, 7]},
    "no tokens": {"tokens": []},
    "beyond the vocabulary": {"tokens": [10**8]},
}
BAD_TOKENS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a number": {"tokens": 5},
    "texts": {"tokens": ["a"]},
    "below none": {"tokens": [-1]},
    "more than 64 bits": {"tokens": [2**70]},
    "an unknown model": {"tokens": [5], "model": "nothing"},
}
# How a refusal differs from vLLM's, and why.
OTHERWISE = {
    (TOKENIZE, "a list"): KIND,
    (TOKENIZE, "messages are a text"): KIND,
    (DETOKENIZE, "a number"): KIND,
    (DETOKENIZE, "more than 64 bits"): Otherwise(400, 400, "no engine is sent such integers"),
    (TOKENIZE, "an unknown model"): UNKNOWN,
    (DETOKENIZE, "an unknown model"): UNKNOWN,
}


@pytest.mark.parametrize(("served", "name"), asked([*PLAIN, CALLS], [*TEXTS, *CHATS]))
def test_texts_and_chats(sides: Sides, served: Served, name: str) -> None:
    assert_alike(sides, TOKENIZE, served, (TEXTS | CHATS)[name])


@pytest.mark.parametrize(("served", "name"), asked(OTHERS, TEXTS))
def test_texts_for_other_models(sides: Sides, served: Served, name: str) -> None:
    # Longer than any context, and not more characters than fit into the shortest by any means.
    text = {"prompt": "people " * 150} if name == "longer than the context" else TEXTS[name]
    assert_alike(sides, TOKENIZE, served, text)


@pytest.mark.parametrize(("served", "name"), asked([*PLAIN, CALLS, *OTHERS], TOKENS))
def test_tokens(sides: Sides, served: Served, name: str) -> None:
    assert_alike(sides, DETOKENIZE, served, TOKENS[name])


@pytest.mark.parametrize(
    ("path", "name"),
    [*((TOKENIZE, name) for name in BAD), *((DETOKENIZE, name) for name in BAD_TOKENS)],
)
def test_refusals(sides: Sides, path: str, name: str) -> None:
    body = (BAD if path == TOKENIZE else BAD_TOKENS)[name]
    assert_refused(*sides.ask(path, PLAIN[0], body), OTHERWISE.get((path, name)))


def test_what_is_far_longer_than_a_context(sides: Sides) -> None:
    """Nothing longer is tokenized than what could fit: `serving/engine/prompt_size.py`."""
    answers = sides.ask(TOKENIZE, OTHERS[0], {"prompt": "people " * 2000})
    assert_refused(*answers, Otherwise(400, 200, "16 characters for each token of the context"))


def test_version(sides: Sides) -> None:
    """Each is its own: the service's here, vLLM's there. Both have the one field."""
    ours, theirs = (side.get("/version") for side in (sides.ours, sides.theirs[BASE]))
    assert ours.json().keys() == theirs.json().keys() == {"version"}
