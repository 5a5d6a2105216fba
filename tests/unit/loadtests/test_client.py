from __future__ import annotations

import json

import pytest

from loadtests.client import CHAT, CREATE_COMPLETION, OPENAI, Capture, request_body


def v4(text: str, tokens: int | None = None, reason: str | None = None) -> bytes:
    usage = None if tokens is None else {"completion": tokens}
    event = {"completion": {"text": text, "finish_reason": reason}, "token_usage": usage}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def v1(text: str, reason: str | None = None) -> bytes:
    choice = {"text": text, "finish_reason": reason}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def chat(reason: str | None = None, **delta: str) -> bytes:
    choice = {"delta": delta, "finish_reason": reason}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


USAGE = b'data: {"choices": [], "usage": {"completion_tokens": 2}}\n\n'
DONE = b"data: [DONE]\n\n"


def capture(path: str, *parts: bytes, status: int = 200) -> Capture:
    """Parts that arrived a second apart."""
    found = Capture(path, status=status, started=10.0, ended=20.0)
    found.parts = [(11.0 + number, part) for number, part in enumerate(parts)]
    return found


def test_a_stream_of_ours() -> None:
    result = capture(CREATE_COMPLETION, v4("a"), v4("b"), v4("c", 3, "stop")).result()
    assert (result.text, result.completion_tokens, result.finish_reason) == ("abc", 3, "stop")
    assert (result.error, result.first_byte_s, result.gaps_s) == (None, 1.0, [1.0, 1.0])
    assert result.total_s == 10.0


def test_events_that_come_together_or_in_pieces() -> None:
    whole = v4("a") + v4("b") + v4("c", 3, "stop")
    result = capture(CREATE_COMPLETION, whole[:100], whole[100:]).result()
    assert result.text == "abc"
    assert sum(result.gaps_s) + (result.first_byte_s or 0) == 2.0


def test_usage_and_done_are_no_tokens() -> None:
    result = capture(OPENAI, v1("a"), v1("b", "length"), USAGE, DONE).result()
    assert (result.text, result.completion_tokens, result.gaps_s) == ("ab", 2, [1.0])


def test_the_role_of_a_chat_is_no_token() -> None:
    role = chat(role="assistant", content="")
    result = capture(CHAT, role, chat(content="a"), chat("length", content="b"), USAGE).result()
    assert (result.text, result.finish_reason, result.completion_tokens) == ("ab", "length", 2)
    assert (result.first_byte_s, result.gaps_s) == (2.0, [1.0])


@pytest.mark.parametrize("path", [CREATE_COMPLETION, OPENAI, CHAT])
def test_a_request_in_each_dialect(path: str) -> None:
    body = request_body(path, "m", "Hi", 3)
    assert (body["model"], body["stream"]) == ("m", True)
    message = {"messages": [{"role": "user", "content": "Hi"}]}
    assert (message if path == CHAT else {"prompt": "Hi"}).items() <= body.items()
    limits = body["model_parameters"] if path == CREATE_COMPLETION else body
    assert (limits["temperature"], limits["max_tokens"]) == (0, 3)


def test_comments_are_no_events() -> None:
    result = capture(CREATE_COMPLETION, b": keepalive\n\n", v4("a", 1, "stop")).result()
    assert (result.first_byte_s, result.text, result.error) == (2.0, "a", None)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (capture(CREATE_COMPLETION, v4("a")), "without a finish reason"),
        (capture(CREATE_COMPLETION, v4("a", 1, "stop")[:-1]), "not closed"),
        (capture(CREATE_COMPLETION, b'event: error\ndata: {"error":{"message":"x"}}\n\n'), "x"),
        (capture(OPENAI, b'data: {"error":{"message":"y"}}\n\n'), "error event: y"),
        (capture(OPENAI, b'{"error":{"message":"z"}}', status=404), "404: z"),
        (capture(OPENAI, b"gone", status=502), "502: gone"),
        (capture(CHAT, b'data: {"error":{"message":"y"}}\n\n'), "error event: y"),
        (capture(CHAT, chat(content="a")), "without a finish reason"),
    ],
)
def test_what_went_wrong_is_in_the_result(found: Capture, words: str) -> None:
    error = found.result().error
    assert error is not None
    assert words in error
