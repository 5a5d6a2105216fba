"""Embeddings beside bare vLLM."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.beside.alike import Otherwise, assert_alike, assert_refused
from tests.cluster.beside.conftest import EMBED
from tests.cluster.beside.sides import Served, Sides

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
    "cut to the context": {"input": "the people " * 400, "truncate_prompt_tokens": -1},
    "cut on the left": {"input": TEXT * 9, "truncate_prompt_tokens": 5, "truncation_side": "left"},
    "padded": {"input": TEXT, "padding": "do_not_pad"},
    "not normal": {"input": TEXT, "use_activation": False},
    "normal": {"input": TEXT, "use_activation": True},
    "a user": {"input": TEXT, "user": "u"},
    "an empty text": {"input": ""},
    "a chat": {"messages": TURNS, "chat_template": TEMPLATE},
    "a chat without a template": {"messages": TURNS},
    **{
        f"{dtype}, {order}": {
            "input": [TEXT, "a"],
            "encoding_format": "base64",
            "embed_dtype": dtype,
            "endianness": order,
        }
        for dtype in DTYPES
        for order in ("native", "big", "little")
    },
    **{
        f"{form}, {dtype}": {"input": [TEXT, "a"], "encoding_format": form, "embed_dtype": dtype}
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
    "a priority": {"input": TEXT, "priority": 5},
    "an unknown model": {"input": TEXT, "model": "nothing"},
    "a model that is a number": {"input": TEXT, "model": 5},
}
# How a refusal differs from vLLM's, and why.
OTHERWISE: dict[str, Otherwise] = {}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("served", MODELS)
def test_answers(sides: Sides, served: Served, name: str) -> None:
    assert_alike(sides, EMBEDDINGS, served, BODIES[name])


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(sides: Sides, name: str) -> None:
    assert_refused(*sides.ask(EMBEDDINGS, MODELS[0], REFUSED[name]), OTHERWISE.get(name))
