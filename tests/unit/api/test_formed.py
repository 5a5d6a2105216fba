"""Texts that fit no context are refused before they are written anew for an engine."""

from __future__ import annotations

from typing import Any

import pytest

from serving.api.chat_v4 import parse_chat
from serving.api.llm_engine import parse_sync
from serving.api.model_calls import parse_model_chat, parse_model_completion
from serving.api.structure import MAX_TEXT
from serving.errors import ContextLengthExceeded
from tests.unit.api.test_structure import Sent

HALF = "é" * (MAX_TEXT // 2 + 1)
CASES: dict[str, tuple[Any, str]] = {
    "chat": (
        parse_chat,
        '{"model":"m","messages":[{"content":"%s"},{"content":[{"text":"%s"}]}]}',
    ),
    "model's chat": (parse_model_chat, '{"prompt":"%s","chat_history":[{"content":"%s"}]}'),
    "model's completion": (parse_model_completion, '{"prompt":"%s%s"}'),
    "completion": (parse_sync, '{"prompt":"%s%s","max_new_tokens":5,"temperature":0.5}'),
}


@pytest.mark.parametrize("name", CASES)
def test_a_text_that_fits_no_context(name: str) -> None:
    parse, body = CASES[name]
    asked = parse(Sent("/"), (body % (HALF, "")).encode())
    asked.check(frozenset())
    with pytest.raises(ContextLengthExceeded, match=r"has 8388610 characters; at most 8388608"):
        parse(Sent("/"), (body % (HALF, HALF)).encode()).check(frozenset())
