"""Embeddings beside bare vLLM."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.beside.alike import (
    KIND,
    ROUTED,
    UNKNOWN,
    Otherwise,
    assert_alike,
    assert_refused,
)
from tests.cluster.beside.conftest import EMBED
from tests.cluster.beside.sides import Served, Sides, asked

BESIDE = (EMBED,)
EMBEDDINGS = "/v1/embeddings"
MODELS = [Served(EMBED, EMBED, EMBED), Served("embeddings", EMBED, EMBED)]
TEXT = "Once upon a time"
TURNS = [
    {"role": "user", "content": "The cat sat on the mat."},
    {"role": "assistant", "content": "A cat was resting."},
    {"role": "user", "content": "Stars are bright."},
]
TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"

DTYPES = ("float32", "float16", "bfloat16", "fp8_e4m3", "fp8_e5m2")
BODIES: dict[str, dict[str, Any]] = {
    "a text": {"input": TEXT},
    "floats": {"input": TEXT, "encoding_format": "float"},
    "base64": {"input": TEXT, "encoding_format": "base64"},
    "token IDs": {"input": [5, 6, 7]},
    "several texts": {"input": [TEXT, "a", "the people"]},
    "lists of token IDs": {"input": [[5, 6, 7], [8]]},
    "many texts": {"input": [f"{TEXT} {n}" for n in range(40)]},
    "without special tokens": {"input": TEXT, "add_special_tokens": False},
    "cut": {"input": TEXT * 9, "truncate_prompt_tokens": 5},
    "cut token IDs": {"input": list(range(5, 40)), "truncate_prompt_tokens": 5},
    "cut to the context": {"input": "the people " * 200, "truncate_prompt_tokens": -1},
    "cut on the left": {"input": TEXT * 9, "truncate_prompt_tokens": 5, "truncation_side": "left"},
    "padded": {"input": TEXT, "padding": "do_not_pad"},
    "not normal": {"input": TEXT, "use_activation": False},
    "normal": {"input": TEXT, "use_activation": True},
    "a user": {"input": TEXT, "user": "u"},
    "an empty text": {"input": ""},
    "a chat": {"messages": TURNS},
    "a priority": {"input": TEXT, "priority": 5},
    **{
        f"{dtype}, {order}": {
            "input": TEXT,
            "encoding_format": "base64",
            "embed_dtype": dtype,
            "endianness": order,
        }
        for dtype in DTYPES
        for order in ("native", "big", "little")
    },
    **{
        f"{form}, {dtype}": {"input": TEXT, "encoding_format": form, "embed_dtype": dtype}
        for form in ("bytes", "bytes_only")
        for dtype in ("float32", "float16")
    },
}
REFUSED: dict[str, dict[str, Any]] = {
    "no input": {},
    "input is none": {"input": None},
    "input is a number": {"input": 5},
    "input is an object": {"input": {"a": 1}},
    "input is empty": {"input": []},
    "an empty list of token IDs": {"input": [[]]},
    "mixed": {"input": ["a", [5]]},
    "token IDs beyond the vocabulary": {"input": [10**8]},
    "token IDs below none": {"input": [-1]},
    "above the context": {"input": "the people " * 400},
    "one above the context": {"input": [TEXT, "the people " * 400]},
    "dimensions": {"input": TEXT, "dimensions": 16},
    "dimensions below none": {"input": TEXT, "dimensions": -1},
    "dimensions are a text": {"input": TEXT, "dimensions": "many"},
    "an unknown format": {"input": TEXT, "encoding_format": "bad"},
    "an unknown dtype": {"input": TEXT, "encoding_format": "base64", "embed_dtype": "bad"},
    "an unknown order": {"input": TEXT, "encoding_format": "base64", "endianness": "bad"},
    "cut above the context": {"input": TEXT, "truncate_prompt_tokens": 8193},
    "cut below": {"input": TEXT, "truncate_prompt_tokens": -2},
    "normalize": {"input": TEXT, "normalize": True},
    "continued and begun": {
        "messages": TURNS,
        "chat_template": TEMPLATE,
        "continue_final_message": True,
        "add_generation_prompt": True,
    },
    "a salt": {"input": TEXT, "cache_salt": ""},
    "a template of its own": {"messages": TURNS, "chat_template": TEMPLATE},
    "cut from far above the context": {
        "input": "the people " * 400,
        "truncate_prompt_tokens": -1,
    },
    "an unknown model": {"input": TEXT, "model": "nothing"},
    "a model that is a number": {"input": TEXT, "model": 5},
}
LONG = "more characters than any tokenization fits into the context"
# How a refusal differs from vLLM's, and why.
OTHERWISE = {
    "input is an object": KIND,
    "above the context": Otherwise(400, 400, LONG),
    "one above the context": Otherwise(400, 400, LONG),
    "cut from far above the context": Otherwise(400, 200, LONG),
    "an unknown model": UNKNOWN,
    "a model that is a number": ROUTED,
}
# vLLM has no such path for the model, or one that is not here.
ELSEWHERE = {
    **dict.fromkeys(("/v1/completions", "/v1/chat/completions"), Otherwise(422, 404, "")),
    **dict.fromkeys(("/v1/messages", "/v1/responses"), Otherwise(422, 404, "")),
    "/classify": Otherwise(404, 404, ""),
    "/pooling": Otherwise(404, 200, ""),
    "/v2/embed": Otherwise(404, 400, ""),
}


@pytest.mark.parametrize(("served", "name"), asked(MODELS, BODIES))
def test_answers(sides: Sides, served: Served, name: str) -> None:
    assert_alike(sides, EMBEDDINGS, served, BODIES[name])


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(sides: Sides, name: str) -> None:
    assert_refused(*sides.ask(EMBEDDINGS, MODELS[0], REFUSED[name]), OTHERWISE.get(name))


@pytest.mark.parametrize("path", ELSEWHERE)
def test_other_endpoints(sides: Sides, path: str) -> None:
    body = {"input": TEXT, "prompt": TEXT, "messages": TURNS[:1], "max_tokens": 5}
    assert_refused(*sides.ask(path, MODELS[0], body), ELSEWHERE[path])
