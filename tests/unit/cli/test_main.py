from __future__ import annotations

import os
import subprocess
import sys

import click
import httpx
import pytest

from serving.cli import client as cli_client
from serving.cli import main as cli
from tests.unit.cli.conftest import COMPLETE, MODELS, ROOT, STREAM, Handler, Recorder, answers, run

SECRET = "sk-secret-123"


def raises(error: BaseException) -> Handler:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    return handler


def never(request: httpx.Request) -> httpx.Response:
    raise AssertionError(f"nothing should be sent, got {request.url}")


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
