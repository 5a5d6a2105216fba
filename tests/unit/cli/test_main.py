"""The `serving` command, against servers that are a function (httpx.MockTransport)."""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner, Result

from serving.cli import client as cli_client
from serving.cli import main as cli
from serving.cli import output as cli_output

Handler = Callable[[httpx.Request], httpx.Response]
ROOT = Path(__file__).parents[3]
SECRET = "sk-secret-123"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVING_URL", raising=False)
    monkeypatch.delenv("SERVING_API_KEY", raising=False)


def run(
    handler: Handler, *args: str, stdin: bytes = b"", env: dict[str, str] | None = None
) -> Result:
    factory = functools.partial(cli_client.make_client, transport=httpx.MockTransport(handler))
    return CliRunner().invoke(cli.main, args, input=stdin, env=env, obj=factory)


def answers(status: int, body: Any, **headers: str) -> Handler:
    return lambda request: httpx.Response(status, json=body, headers=headers)


def raises(error: BaseException) -> Handler:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    return handler


def never(request: httpx.Request) -> httpx.Response:
    raise AssertionError(f"nothing should be sent, got {request.url}")


class Recorder:
    """Keeps the request and gives one answer."""

    def __init__(self, body: Any) -> None:
        self.body = body

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.request = request
        return httpx.Response(200, json=self.body)

    @property
    def sent(self) -> Any:
        return json.loads(self.request.content)


# Frames of a completion stream


def chunk(text: str, finish_reason: str | None = None, completion: int = 3) -> dict[str, Any]:
    usage = {"prompt": 5, "completion": completion, "total": 5 + completion}
    return {
        "completion": {"text": text, "finish_reason": finish_reason, "response_metadata": None},
        "token_usage": usage if finish_reason else None,
    }


def frame(text: str, finish_reason: str | None = None, completion: int = 3) -> bytes:
    body = json.dumps(chunk(text, finish_reason, completion), ensure_ascii=False)
    return f"data: {body}\n\n".encode()


def error_frame(**error: str) -> bytes:
    return f"event: error\ndata: {json.dumps({'error': error, 'detail': 'x'})}\n\n".encode()


def streams(*parts: bytes) -> Handler:
    return lambda request: httpx.Response(200, content=iter(parts))


WHOLE = chunk("Paris.", "stop")
STREAM = streams(frame("Par"), frame("is."), frame("", "stop"))
COMPLETE = ("complete", "tiny", "The capital of France is")


# serving up


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("--help",),
        ("-h",),
        ("--models", "my models.yaml", "--host", "0.0.0.0", "--port=9000"),
        ("-vx", "word", "--flag", ""),
    ],
)
def test_up_becomes_deployments_up(args: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(os, "execv", lambda path, argv: calls.append((path, argv)))
    assert run(never, "up", *args).exit_code == 0
    assert calls == [(sys.executable, [sys.executable, "-m", "deployments.up", *args])]


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, serving.cli.main;"
        "heavy = {'ray', 'deployments', 'vllm', 'pydantic', 'yaml'};"
        "print([m for m in sys.modules if m.split('.')[0] in heavy])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


# serving status


def replica(name: str, state: str = "ready", **changes: Any) -> dict[str, Any]:
    load = {"in_flight": 4, "running": 3, "waiting": 1, "adapters": []}
    about = {"id": name, "address": f"10.0.0.1:{name[-1]}", "code": "c0de"}
    return {**about, "state": state, **load, **changes}


def cluster(*, second_ready: bool = True) -> dict[str, Any]:
    tiny = [
        replica("tiny-0", adapters=["tiny.law", "med"]),
        replica("tiny-1", "draining", adapters=["tiny.law"]),
    ]
    big = [replica("big-2", "ready" if second_ready else "connecting")]

    def model(id: str, kind: str, base: str | None, replicas: Any, ready: bool) -> dict[str, Any]:
        return {
            "id": id,
            "kind": kind,
            "base": base,
            "ready": ready,
            "in_flight": 7,
            "replicas": replicas,
        }

    return {
        "router": "prefix",
        "uptime_s": 3725.0,
        "models": [
            model("tiny", "engine", None, tiny, True),
            model("big", "engine", None, big, second_ready),
            model("tiny.law", "adapter", "tiny", tiny, True),
            model("latest", "alias", "big", big, second_ready),
        ],
    }


def test_status_is_an_aligned_table() -> None:
    result = run(answers(200, cluster()), "status")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "router prefix, up 1h02m, 2 of 2 engine models ready",
        "MODEL     KIND     READY  REPLICAS  RUNNING  WAITING  IN FLIGHT  ADAPTERS",
        "tiny      engine   yes    1/2             6        2          7  2",
        "big       engine   yes    1/1             3        1          7  0",
        "tiny.law  adapter  yes    1/2             -        -          7  on 2",
        "latest    alias    yes    1/1             -        -          7  -",
    ]


def test_status_replicas_lists_each_replica_once() -> None:
    result = run(answers(200, cluster()), "status", "--replicas")
    assert result.stdout.splitlines()[6:] == [
        "",
        "MODEL  REPLICA  ADDRESS     CODE  STATE     RUNNING  WAITING  IN FLIGHT  ADAPTERS",
        "tiny   tiny-0   10.0.0.1:0  c0de  ready           3        1          4  tiny.law,med",
        "tiny   tiny-1   10.0.0.1:1  c0de  draining        3        1          4  tiny.law",
        "big    big-2    10.0.0.1:2  c0de  ready           3        1          4  -",
    ]


@pytest.mark.parametrize("flags", [(), ("--json",), ("--replicas",)])
def test_status_exits_1_while_an_engine_model_is_not_ready(flags: tuple[str, ...]) -> None:
    result = run(answers(200, cluster(second_ready=False)), "status", *flags)
    assert (result.exit_code, result.stderr) == (1, "")
    assert "big" in result.stdout


def test_status_looks_at_engine_models_only() -> None:
    answer = cluster()
    answer["models"][2]["ready"] = False
    assert run(answers(200, answer), "status").exit_code == 0


def test_status_of_a_cluster_without_engine_models_is_not_ready() -> None:
    result = run(answers(200, {"router": "prefix", "uptime_s": 5, "models": []}), "status")
    assert result.exit_code == 1
    assert result.stdout.startswith("router prefix, up 0m05s, 0 of 0 engine models ready\nMODEL")


def test_status_json_is_the_answer_on_one_line() -> None:
    result = run(answers(200, cluster()), "status", "--json")
    assert result.stdout.count("\n") == 1
    assert json.loads(result.stdout) == cluster()


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0m00s"), (61, "1m01s"), (3600, "1h00m"), (90_000, "1d01h")]
)
def test_duration(seconds: float, shown: str) -> None:
    assert cli_output.duration(seconds) == shown


# serving models


def openai_model(id: str, **fields: Any) -> dict[str, Any]:
    return {"id": id, "object": "model", "created": 1, "owned_by": "serving", **fields}


MODELS = {
    "object": "list",
    "data": [
        openai_model("tiny", root="tiny", parent=None, max_model_len=2048),
        openai_model("tiny.law", root="tiny.law", parent="tiny", max_model_len=2048),
        openai_model("latest", root="tiny", parent=None, max_model_len=None),
    ],
}


def test_models_tells_kind_and_base_from_parent_and_root() -> None:
    result = run(answers(200, MODELS), "models")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "ID        KIND     BASE  CONTEXT",
        "tiny      engine   -        2048",
        "tiny.law  adapter  tiny     2048",
        "latest    alias    tiny        -",
    ]


def test_models_json_is_the_answer() -> None:
    assert json.loads(run(answers(200, MODELS), "models", "--json").stdout) == MODELS


EVERYTHING = {
    "object": "list",
    "data": [
        openai_model("tiny", root="tiny", parent=None, max_model_len=2048)
        | {"kind": "engine", "deployed": True},
        openai_model("tiny.law", parent="tiny", max_model_len=2048)
        | {"kind": "adapter", "deployed": True},
        openai_model("latest", root="tiny", max_model_len=2048) | {"kind": "alias"},
        openai_model("falcon-7b", max_model_len=2048) | {"kind": "engine", "deployed": False},
        openai_model("gpt-4o") | {"kind": "upstream", "deployed": True, "provider": "openai"},
        openai_model("gpt-4")
        | {"kind": "retired", "deployed": False, "provider": "openai"}
        | {"retired_on": "2026-10-23", "successor": "gpt-5"},
        openai_model("old-1") | {"kind": "retired", "provider": "openai"},
    ],
}


def test_models_all_lists_what_is_known() -> None:
    server = Recorder(EVERYTHING)
    result = run(server, "models", "--all")
    assert str(server.request.url).endswith("/v1/models?all=true")
    assert result.stdout.splitlines() == [
        "ID         KIND      STATE               RELATED  CONTEXT",
        "tiny       engine    deployed            -           2048",
        "tiny.law   adapter   deployed            tiny        2048",
        "latest     alias     deployed            tiny        2048",
        "falcon-7b  engine    known               -           2048",
        "gpt-4o     upstream  deployed            openai         -",
        "gpt-4      retired   retired 2026-10-23  gpt-5          -",
        "old-1      retired   retired             openai         -",
    ]


def test_models_all_of_a_server_that_knows_no_more() -> None:
    result = run(answers(200, MODELS), "models", "--all")
    assert result.stdout.splitlines()[1:] == [
        "tiny      engine   deployed  -           2048",
        "tiny.law  adapter  deployed  tiny        2048",
        "latest    alias    deployed  tiny           -",
    ]


def test_models_all_json_is_the_answer() -> None:
    assert json.loads(run(answers(200, EVERYTHING), "models", "--all", "--json").stdout) == (
        EVERYTHING
    )


# serving complete


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


# Exit codes every client command shares

CLIENT_COMMANDS = [
    ("status",),
    ("models",),
    ("models", "--all"),
    COMPLETE,
    (*COMPLETE, "--no-stream"),
]
every_client_command = pytest.mark.parametrize("command", CLIENT_COMMANDS, ids=" ".join)


@every_client_command
def test_no_server_exits_3_and_says_what_to_do(command: tuple[str, ...]) -> None:
    result = run(raises(httpx.ConnectError("Connection refused")), *command, "--url", "http://h:1/")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("error: no server at http://h:1 (Connection refused)\n")
    for hint in ("make serve", "serving up", "--url", "SERVING_URL"):
        assert hint in result.stderr


def test_no_server_never_shows_a_password_in_the_url() -> None:
    error = httpx.ConnectTimeout("timed out")
    result = run(raises(error), "models", "--url", "https://me:hunter2@llm.example.com/x")
    assert result.exit_code == 3
    assert "https://llm.example.com/x" in result.stderr
    assert "hunter2" not in result.output


@every_client_command
@pytest.mark.parametrize(
    ("args", "env", "source"),
    [
        (("--api-key", SECRET), {"SERVING_API_KEY": "sk-other"}, "--api-key"),
        ((), {"SERVING_API_KEY": SECRET}, "SERVING_API_KEY"),
        ((), {}, "the built-in default"),
    ],
)
def test_a_refused_key_exits_4_and_is_not_shown(
    command: tuple[str, ...], args: tuple[str, ...], env: dict[str, str], source: str
) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        key = request.headers["x-api-key"]
        return httpx.Response(401, json={"error": {"message": f"Incorrect API key: {key}"}})

    result = run(handler, *command, *args, env=env)
    assert (result.exit_code, result.stdout) == (4, "")
    assert f"refused the API key, which came from {source}" in result.stderr
    assert "sk-" not in result.output


@every_client_command
def test_the_servers_error_exits_1(command: tuple[str, ...]) -> None:
    message = "no model named 'tinny'; the closest are tiny, tiny.law"
    error = {"type": "x", "code": "unknown_model", "message": message, "request_id": "req-9"}
    result = run(answers(404, {"error": error, "detail": message}), *command)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"error: {message} (404, unknown_model, req-9)\n"


@pytest.mark.parametrize(
    ("response", "shown"),
    [
        (  # OpenAI's envelope, the id in a header
            httpx.Response(
                404,
                json={"error": {"message": "gone", "type": "NotFound", "code": 404}},
                headers={"x-request-id": "req-7"},
            ),
            "gone (404, req-7)",
        ),
        (httpx.Response(403, json={"error": "no", "detail": "no"}), "no (403)"),
        (httpx.Response(405, json={"detail": "Method Not Allowed"}), "Method Not Allowed (405)"),
        (httpx.Response(502, html="<h1>x</h1>"), "the server answered Bad Gateway (502)"),
        (httpx.Response(307, headers={"location": "/"}), "the server answered Temporary"),
        (httpx.Response(500, json=[1]), "the server answered Internal Server Error (500)"),
    ],
)
def test_other_error_bodies(response: httpx.Response, shown: str) -> None:
    result = run(lambda request: response, "models")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {shown}")


@every_client_command
def test_a_silent_server_exits_1(command: tuple[str, ...]) -> None:
    result = run(raises(httpx.ReadTimeout("x")), *command, "--timeout", "2.5")
    assert result.exit_code == 1
    assert "http://127.0.0.1:8000 was silent for 2.5 s (--timeout" in result.stderr


@every_client_command
@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"models": 1, "data": [2]}'])
def test_an_answer_of_another_shape_exits_1(command: tuple[str, ...], body: bytes) -> None:
    content = b"data: " + body + b"\n\n" if command == COMPLETE else body
    result = run(lambda request: httpx.Response(200, content=content), *command)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "answered something this command cannot read" in result.stderr


@every_client_command
def test_ctrl_c_exits_130_silently(command: tuple[str, ...]) -> None:
    result = run(raises(KeyboardInterrupt()), *command)
    assert (result.exit_code, result.output) == (130, "")


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        ((), "Usage:"),
        (("statsu",), "No such command"),
        (("complete", "tiny"), "Missing argument 'PROMPT'"),
        ((*COMPLETE, *["--stop", "x"] * 5), "at most 4 stop sequences, got 5"),
        ((*COMPLETE, "--temperature", "1.5"), "--temperature"),
        ((*COMPLETE, "--temperature", "nan"), "cannot be written as JSON"),
        ((*COMPLETE, "--max-tokens", "0"), "--max-tokens"),
        (("complete", "tiny", "\udcff"), "cannot be written as JSON"),
        (("status", "--timeout", "0"), "--timeout"),
        (("status", "--url", "localhost:8000"), "it must look like http://127.0.0.1:8000"),
        (("status", "--url", "http://"), "it must look like"),
        (("status", "--url", "http://[::"), "--url"),
        (("status", "--api-key", f"{SECRET}\n"), "--api-key"),
        (("status", "--api-key", f"{SECRET}é"), "--api-key"),
        (("status", "--api-key", f"{SECRET} "), "--api-key"),
    ],
)
def test_wrong_usage_exits_2(args: tuple[str, ...], shown: str) -> None:
    result = run(never, *args)
    assert result.exit_code == 2
    assert shown in result.stderr
    assert SECRET not in result.output


def test_a_prompt_on_stdin_that_is_not_utf8_exits_2() -> None:
    assert run(never, "complete", "tiny", "-", stdin=b"\xff").exit_code == 2


def test_four_stop_sequences_are_allowed() -> None:
    assert run(STREAM, *COMPLETE, *["--stop", "x"] * 4).exit_code == 0


# The request and its client


def test_url_and_key_come_from_the_environment() -> None:
    server = Recorder(MODELS)
    env = {"SERVING_URL": "https://llm.example.com/prefix/", "SERVING_API_KEY": SECRET}
    assert run(server, "models", env=env).exit_code == 0
    assert str(server.request.url) == "https://llm.example.com/prefix/v1/models"
    assert server.request.headers["x-api-key"] == SECRET


def test_the_defaults_are_those_of_make_serve() -> None:
    server = Recorder(MODELS)
    run(server, "models")
    assert str(server.request.url) == "http://127.0.0.1:8000/v1/models"
    assert server.request.headers["x-api-key"] == "sk-local"


def test_the_timeout_bounds_connecting_more_tightly() -> None:
    target = cli_client.Target(httpx.URL("http://h"), "k", "--api-key", timeout=600)
    with cli_client.make_client(target) as client:
        assert client.timeout == httpx.Timeout(600, connect=10)


@pytest.mark.parametrize(
    ("url", "uses_proxy"),
    [("http://127.0.0.1:8000", False), ("http://[::1]:8", False), ("http://llm.example.com", True)],
)
def test_a_proxy_is_not_asked_for_this_machine(
    url: str, uses_proxy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example.com:3128")
    with cli_client.make_client(cli_client.Target(httpx.URL(url), "k", "--api-key", 1)) as client:
        assert client.trust_env is uses_proxy


# Help


def test_help_documents_every_exit_code() -> None:
    text = run(never, "--help").stdout
    for code in (0, 1, 2, cli_client.EXIT_NO_SERVER, cli_client.EXIT_BAD_KEY, 130, 141):
        assert f"\n    {code:<5}" in text


@pytest.mark.parametrize("name", ["status", "models", "complete"])
def test_each_client_command_teaches_by_example(name: str) -> None:
    text = run(never, name, "--help").stdout
    assert f"Examples:\n    serving {name}" in text
    assert isinstance(cli.main, click.Group)
    for option in ("--url", "--api-key", "--timeout"):
        assert option in text
    assert "sk-local" not in text


# Signals and pipes need a real process and a real socket


@pytest.fixture
def endless_server() -> Iterator[str]:
    """Streams one completion for as long as the client stays."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(65_536)
            peer.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
            try:
                while True:
                    peer.sendall(frame("word " * 100))
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread.join(timeout=10)
    listener.close()
    assert not thread.is_alive(), "the client should have closed its connection"


def start(url: str) -> subprocess.Popen[bytes]:
    # A shell starts what it puts in the background with SIGINT ignored, which children inherit.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from serving.cli.main import main; main()"
    )
    args = [sys.executable, "-c", code, *COMPLETE, "--url", url]
    # Unbuffered output would hide what the interpreter does with stdout as it exits.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(args, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_reader_that_leaves_ends_the_command_quietly(endless_server: str) -> None:
    process = start(endless_server)
    assert process.stdout
    assert process.stderr
    assert process.stdout.read(5) == b"word "
    process.stdout.close()
    assert process.wait(timeout=10) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


def test_ctrl_c_while_streaming_ends_the_command_quietly(endless_server: str) -> None:
    process = start(endless_server)
    assert process.stdout
    assert process.stdout.read(5) == b"word "
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (130, b"")
