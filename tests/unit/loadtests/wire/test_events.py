from __future__ import annotations

import json
from typing import Any

import pytest

from loadtests.wire.events import Frames, Part, Unreadable, body_kind, frame_data, read_part


def frames(*pieces: bytes) -> list[bytes]:
    found = Frames()
    return [frame for piece in pieces for frame in found.feed(piece)]


STREAM = b'data: {"a": 1}\n\n: keepalive\n\nevent: error\ndata: x\n\ndata: [DONE]\n\n'
WHOLE = [(b"", b'{"a": 1}'), (b"", b""), (b"error", b"x"), (b"", b"[DONE]")]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_frames_wherever_the_stream_is_cut(newline: bytes) -> None:
    stream = STREAM.replace(b"\n", newline)
    for cut in range(len(stream) + 1):
        assert [frame_data(frame) for frame in frames(stream[:cut], stream[cut:])] == WHOLE


def test_a_frame_without_its_blank_line_is_not_there_yet() -> None:
    assert frames(b"data: x\n") == []


def test_fields() -> None:
    assert frame_data(b"data:x") == (b"", b"x")
    assert frame_data(b"id: 3\ndata: x\ndata: y") == (b"", b"x\ny")


def read(endpoint: Any, said: dict[str, Any]) -> Part:
    return read_part(endpoint, json.dumps(said).encode())


def test_create_completion() -> None:
    completion = {"text": "a", "finish_reason": None, "response_metadata": None}
    part = read("create_completion", {"completion": completion, "token_usage": None})
    assert (part.text, part.carries, part.prompt_tokens) == ("a", True, None)
    usage = {"prompt": 3, "completion": 2, "total": 5}
    completion = {"text": "", "finish_reason": "stop"}
    part = read("create_completion", {"completion": completion, "token_usage": usage})
    assert (part.carries, part.finish_reason) == (False, "stop")
    assert (part.prompt_tokens, part.completion_tokens) == (3, 2)


def test_completions() -> None:
    part = read("completions", {"choices": [{"text": "a", "finish_reason": "length"}]})
    assert (part.text, part.carries, part.finish_reason) == ("a", True, "length")


def test_usage_with_cached_tokens() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    part = read("completions", {"choices": [], "usage": usage})
    assert (part.prompt_tokens, part.cached_tokens, part.completion_tokens) == (9, 0, 2)
    usage |= {"prompt_tokens_details": None}  # type: ignore[dict-item]
    assert read("chat", {"choices": [], "usage": usage}).cached_tokens == 0
    usage |= {"prompt_tokens_details": {"cached_tokens": 8}}  # type: ignore[dict-item]
    assert read("chat", {"choices": [], "usage": usage}).cached_tokens == 8


@pytest.mark.parametrize(
    ("delta", "carries"),
    [
        ({"role": "assistant", "content": ""}, False),
        ({"content": "a"}, True),
        ({"content": None, "reasoning_content": "hm"}, True),
        ({"reasoning": "hm"}, True),
        ({"tool_calls": [{"index": 0}]}, True),
        ({"tool_calls": []}, False),
        ({"tool_calls": None}, False),
        ({}, False),
    ],
)
def test_which_parts_of_a_chat_carry_something(delta: dict[str, Any], carries: bool) -> None:
    assert read("chat", {"choices": [{"delta": delta}]}).carries is carries


def test_done() -> None:
    assert read_part("chat", b"[DONE]").done


@pytest.mark.parametrize(
    ("endpoint", "data"),
    [
        ("chat", b"{"),
        ("chat", b"[]"),
        ("chat", b'{"choices": [{"delta": {"content": 1}}]}'),
        ("completions", b'{"choices": [{"text": "\xff"}]}'),
        ("create_completion", b"{}"),
    ],
)
def test_unreadable(endpoint: Any, data: bytes) -> None:
    with pytest.raises(Unreadable):
        read_part(endpoint, data)


def test_errors_are_told_by_their_kind() -> None:
    error = {"type": "server_error", "code": "engine_died", "message": "request 17"}
    assert read("chat", {"error": error}).error == "engine_died"
    assert read("create_completion", {"error": {"type": "t", "code": 500}}).error == "t"
    assert read("chat", {"error": "request 17 died"}).error == "error"


def test_kinds_of_error_bodies() -> None:
    assert body_kind(b'{"error": {"code": "rate_limit", "message": "x"}}') == "rate_limit"
    assert body_kind(b'{"object": "error", "type": "BadRequestError", "code": 400}') == (
        "BadRequestError"
    )
    assert body_kind(b"<html>") == body_kind(b"[]") == body_kind(b'{"detail": "no"}') == ""
