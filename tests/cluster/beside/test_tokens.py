"""`/tokenize` and `/detokenize` beside bare vLLM."""

from __future__ import annotations

from typing import Any

import pytest

from local_models.make import RERANKER
from tests.cluster.beside.alike import Otherwise, assert_alike, assert_refused
from tests.cluster.beside.conftest import EMBED, WHISPER
from tests.cluster.beside.sides import Served, Sides
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
    "longer than the context": {"prompt": "people " * 2000},
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
    "template": {"messages": TURNS, "chat_template": "{{ messages[0].content }}"},
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
    "a wrong template": {"messages": TURNS, "chat_template": "{{"},
    "an unknown model": {"prompt": TEXT, "model": "nothing"},
}
TOKENS: dict[str, dict[str, Any]] = {"tokens": {"tokens": [5, 6, 7]}, "no tokens": {"tokens": []}}
BAD_TOKENS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a number": {"tokens": 5},
    "texts": {"tokens": ["a"]},
    "beyond the vocabulary": {"tokens": [10**8]},
    "below none": {"tokens": [-1]},
    "more than 64 bits": {"tokens": [2**70]},
    "an unknown model": {"tokens": [5], "model": "nothing"},
}
# How a refusal differs from vLLM's, and why.
OTHERWISE: dict[str, Otherwise] = {}


@pytest.mark.parametrize("name", [*TEXTS, *CHATS])
@pytest.mark.parametrize("served", [*PLAIN, CALLS])
def test_texts_and_chats(sides: Sides, served: Served, name: str) -> None:
    assert_alike(sides, TOKENIZE, served, (TEXTS | CHATS)[name])


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("served", OTHERS)
def test_texts_for_other_models(sides: Sides, served: Served, name: str) -> None:
    assert_alike(sides, TOKENIZE, served, TEXTS[name])


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("served", [*PLAIN, CALLS, *OTHERS])
def test_tokens(sides: Sides, served: Served, name: str) -> None:
    assert_alike(sides, DETOKENIZE, served, TOKENS[name])


@pytest.mark.parametrize(
    ("path", "name"),
    [*((TOKENIZE, name) for name in BAD), *((DETOKENIZE, name) for name in BAD_TOKENS)],
)
@pytest.mark.parametrize("served", [PLAIN[0], PLAIN[2]])
def test_refusals(sides: Sides, served: Served, path: str, name: str) -> None:
    body = (BAD if path == TOKENIZE else BAD_TOKENS)[name]
    assert_refused(*sides.ask(path, served, body), OTHERWISE.get(name))


def test_version(sides: Sides) -> None:
    """Each is its own: the service's here, vLLM's there. Both have the one field."""
    ours, theirs = (side.get("/version") for side in (sides.ours, sides.theirs[BASE]))
    assert ours.json().keys() == theirs.json().keys() == {"version"}
