"""What `serving up` refuses before it starts anything."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deployments import up
from deployments.address import url_of
from deployments.up import EXIT_RUNNING, EXIT_USAGE


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("SERVING_", "RAY_"))]:
        monkeypatch.delenv(name)
    # What the command sets, so that it is gone afterwards.
    for name in ("SERVING_API_KEYS", "SERVING_STORE_URL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


Command = Callable[..., Result]


class Started(Exception):
    """`serving up` went on to start Ray."""


@pytest.fixture
def serving_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    def run(self: object) -> int:
        raise Started

    monkeypatch.setattr(up.Supervisor, "run", run)
    monkeypatch.setattr(up.tempfile, "gettempdir", lambda: str(tmp_path))

    def call(*arguments: str, **env: str) -> Result:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        return CliRunner().invoke(up.main, ["--run-dir", str(tmp_path), *arguments])

    return call


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.7", "example.com", "127.1"])
@pytest.mark.parametrize("keys", ["sk-local", "sk-a:a, sk-local:b", " sk-local ,sk-a"])
def test_the_key_that_everybody_knows(serving_up: Command, host: str, keys: str) -> None:
    result = serving_up("--host", host, SERVING_API_KEYS=keys)
    assert result.exit_code == EXIT_USAGE
    assert "SERVING_API_KEYS" in result.output
    assert "secrets.token_urlsafe" in result.output, "how to make one"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost", "LocalHost"])
def test_on_this_machine_it_will_do(serving_up: Command, host: str) -> None:
    result = serving_up("--host", host, "--port", free_port())
    assert isinstance(result.exception, Started), result.output


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_with_a_key_of_ones_own_it_listens_anywhere(serving_up: Command, host: str) -> None:
    arguments = ("--host", host, "--port", free_port())
    result = serving_up(*arguments, SERVING_API_KEYS="sk-own")
    assert isinstance(result.exception, Started), result.output


def test_a_key_is_made_where_others_may_call(serving_up: Command) -> None:
    result = serving_up("--host", "0.0.0.0", "--port", free_port())
    assert isinstance(result.exception, Started), result.output
    assert "sk-local" not in os.environ.get("SERVING_API_KEYS", "")


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"SERVING_STORE_URL": ""}, "no store to make one in"),
        ({"SERVING_STORE_URL": "mysql://db/x"}, "'mysql' cannot be the store"),
    ],
)
def test_a_store_that_no_key_can_be_made_in(
    serving_up: Command, env: dict[str, str], message: str
) -> None:
    result = serving_up("--host", "0.0.0.0", **env)
    assert result.exit_code == EXIT_USAGE
    assert message in result.output


@pytest.mark.parametrize(("host", "refused"), [("0.0.0.0", True), ("127.0.0.1", False)])
def test_ray_without_its_token(serving_up: Command, host: str, refused: bool) -> None:
    arguments = ("--host", host, "--port", free_port())
    env = {"RAY_AUTH_MODE": "disabled", "SERVING_API_KEYS": "sk-own"}
    result = serving_up(*arguments, **env)
    if refused:
        assert result.exit_code == EXIT_USAGE
        assert "RAY_AUTH_MODE" in result.output
    else:
        assert isinstance(result.exception, Started), result.output


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_port_that_is_taken(serving_up: Command, family: int, host: str) -> None:
    with socket.socket(family) as taken:
        taken.bind((host, 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = serving_up("--host", host, "--port", port)
    assert result.exit_code == EXIT_RUNNING
    assert "cannot listen" in result.output


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("2001:db8::1", "http://[2001:db8::1]:80"),
        ("localhost", "http://localhost:80"),
    ],
)
def test_where_it_is_reached(host: str, url: str) -> None:
    assert url_of(host, 80) == url


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
