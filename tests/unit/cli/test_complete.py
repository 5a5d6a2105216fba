from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serving.cli import output as cli_output
from tests.unit.cli.conftest import COMPLETE, STREAM, Recorder, answers, chunk, frame, run, streams


def error_frame(**error: str) -> bytes:
    return f"event: error\ndata: {json.dumps({'error': error, 'detail': 'x'})}\n\n".encode()


WHOLE = chunk("Paris.", "stop")


def test_complete_prints_the_text_and_a_newline() -> None:
    result = run(STREAM, *COMPLETE)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Paris.\n", "")


def test_complete_prints_each_chunk_before_it_reads_the_next() -> None:
    seen: list[bytes] = []

    def parts() -> Iterator[bytes]:
        for part in (frame("one "), frame("two "), frame("three", "stop")):
            # Straight from the byte stream below stdout: what was written and flushed.
            seen.append(sys.stdout.buffer.getvalue())  # type: ignore[union-attr]
            yield part

    result = run(lambda request: httpx.Response(200, content=parts()), *COMPLETE)
    assert seen == [b"", b"one ", b"one two "]
    assert result.stdout == "one two three\n"


def test_complete_adds_no_second_newline() -> None:
    assert run(streams(frame("a\n", "stop")), *COMPLETE).stdout == "a\n"


def test_complete_keeps_characters_that_are_split_across_chunks() -> None:
    text = "né 東京 🎉\u2028next\x85"
    body = b": warming up\n\n" + frame(text) + frame("!", "stop")
    result = run(streams(*(body[i : i + 1] for i in range(len(body)))), *COMPLETE)
    assert result.stdout_bytes.decode() == text + "!\n"


def test_complete_writes_the_text_byte_for_byte() -> None:
    # Escape sequences survive a pipe; half of a surrogate pair does not end in a traceback.
    half = b'data: {"completion":{"text":"\\ud83d","finish_reason":"stop"},"token_usage":null}\n\n'
    result = run(streams(frame("\x1b[1mbold"), half), *COMPLETE)
    assert (result.exit_code, result.stdout) == (0, "\x1b[1mbold?\n")


def test_complete_ignores_comments_and_accepts_crlf() -> None:
    crlf = frame("b", "stop").replace(b"\n", b"\r\n")
    result = run(
        streams(b":\n\n", b": keep", b"alive\n\n", frame("a"), b": x\n\n", crlf), *COMPLETE
    )
    assert (result.exit_code, result.stdout) == (0, "ab\n")


def test_complete_sends_only_what_was_given() -> None:
    server = Recorder(WHOLE)
    assert run(server, *COMPLETE, "--no-stream").exit_code == 0
    assert (server.request.method, server.request.url.path) == ("POST", "/v4/completions")
    assert server.request.headers["content-type"] == "application/json"
    assert server.sent == {"model": "tiny", "prompt": COMPLETE[2], "stream": False}


def test_complete_sends_every_option() -> None:
    server = Recorder(WHOLE)
    options = "--no-stream --temperature 0 --max-tokens 9 --top-p 0.9 --top-k 40 --account acme"
    result = run(server, *COMPLETE, *options.split(), "--stop", "\n", "--stop", "é")
    assert result.exit_code == 0
    assert server.sent["account_id"] == "acme"
    assert server.sent["model_parameters"] == {
        "temperature": 0,
        "max_tokens": 9,
        "top_p": 0.9,
        "top_k": 40,
        "stop_sequences": ["\n", "é"],
    }


def test_complete_asks_for_a_stream_by_default() -> None:
    bodies: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return STREAM(request)

    run(handler, *COMPLETE)
    assert bodies[0]["stream"] is True


def test_complete_reads_the_prompt_from_stdin_as_it_is() -> None:
    server = Recorder(WHOLE)
    run(server, "complete", "tiny", "-", "--no-stream", stdin=b"d\xc3\xa9j\xc3\xa0\n")
    assert server.sent["prompt"] == "déjà\n"


def test_complete_no_stream_prints_the_text() -> None:
    assert run(answers(200, WHOLE), *COMPLETE, "--no-stream").stdout == "Paris.\n"


def test_complete_json_prints_one_event_per_line() -> None:
    result = run(STREAM, *COMPLETE, "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines == [chunk("Par"), chunk("is."), chunk("", "stop")]
    result = run(answers(200, WHOLE), *COMPLETE, "--json", "--no-stream")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [WHOLE]


def test_complete_usage_goes_to_stderr() -> None:
    result = run(STREAM, *COMPLETE, "--usage")
    assert result.stdout == "Paris.\n"
    assert result.stderr.startswith("usage: prompt 5, completion 3, total 8 tokens; first token")
    assert "tokens/s" in result.stderr
    assert result.stderr.endswith("finish reason stop\n")


@pytest.mark.parametrize(
    ("stream", "times", "shown"),
    [
        # 10 tokens after the first, in 2 s
        (True, [1.0, 1.5, 2.5, 3.5, 3.6], "first token after 0.500 s; 5.0 tokens/s; 2.600 s in"),
        # All text at once: the speed can only be that of the whole
        (True, [1.0, 2.1], "first token after 1.100 s; 10.0 tokens/s; 1.100 s in all"),
        (False, [1.0, 2.1], "total 16 tokens; 10.0 tokens/s; 1.100 s in all"),
    ],
)
def test_usage_line(stream: bool, times: list[float], shown: str) -> None:
    clock = iter(times)
    printer = cli_output.CompletionPrinter(stream=stream, as_json=False, clock=clock.__next__)
    texts = [*["x"] * (len(times) - 2), "" if len(times) > 2 else "x"]
    for text in texts[:-1]:
        printer.add(chunk(text), text)
    printer.add(chunk(texts[-1], "stop", completion=11), texts[-1])
    assert shown in printer.usage_line()


def test_usage_line_without_usage() -> None:
    body = {**WHOLE, "token_usage": None}
    result = run(answers(200, body), *COMPLETE, "--no-stream", "--usage")
    assert result.stderr == "usage: the server reported none\n"


@pytest.mark.parametrize(
    "parts",
    [
        (frame("half"),),
        (frame("half"), b": last words\n\n"),
        (frame("half"), frame("", "stop")[:-1]),  # no blank line: never complete
    ],
)
def test_a_stream_that_ends_early_is_an_error(parts: tuple[bytes, ...]) -> None:
    result = run(streams(*parts), *COMPLETE)
    assert (result.exit_code, result.stdout) == (1, "half\n")
    assert (
        result.stderr == "error: the stream ended before its last chunk: the text is incomplete\n"
    )


def test_an_error_event_ends_the_stream() -> None:
    error = error_frame(message="the engine stopped", code="engine_failed", request_id="req-1")
    result = run(streams(frame("half"), error, frame("never", "stop")), *COMPLETE)
    assert (result.exit_code, result.stdout) == (1, "half\n")
    assert result.stderr == "error: the engine stopped (engine_failed, req-1)\n"


def test_an_error_event_is_also_a_json_line() -> None:
    result = run(streams(frame("half"), error_frame(message="no")), *COMPLETE, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout.splitlines()[1])["error"] == {"message": "no"}
    assert result.stderr == "error: no\n"


def test_an_error_event_that_is_not_json_is_shown() -> None:
    result = run(streams(b"event: error\ndata: out of memory\n\n"), *COMPLETE)
    assert (result.exit_code, result.stderr) == (1, "error: out of memory\n")


def test_a_connection_that_breaks_mid_stream() -> None:
    def parts() -> Iterator[bytes]:
        yield frame("half")
        raise httpx.ReadError("connection reset")

    result = run(lambda request: httpx.Response(200, content=parts()), *COMPLETE)
    assert (result.exit_code, result.stdout) == (1, "half\n")
    assert result.stderr == (
        "error: the exchange with http://127.0.0.1:8000 broke off: connection reset\n"
    )
