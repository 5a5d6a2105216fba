"""What `serving/http/listener.py` takes for granted of uvicorn, held against the installed one.

uvicorn's server makes our connections and keeps them in its books, which is no public interface, so
the version is pinned exactly. When a new version fails here, each message says what to look at.
"""

from __future__ import annotations

import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path

import uvicorn
from uvicorn.server import ServerState

ROOT = Path(__file__).parents[3]


def test_the_pin_is_exact_and_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pin,) = [line for line in project["dependencies"] if line.startswith("uvicorn")]
    assert pin == f"uvicorn=={version('uvicorn')}", (
        f"pyproject.toml pins {pin}, installed is {version('uvicorn')}: go through this file and "
        "serving/http/listener.py with the new source, then move the pin"
    )


def test_a_connection_is_made_with_the_server_s_books() -> None:
    source = inspect.getsource(uvicorn.Server.startup)
    assert "config.http_protocol_class(" in source, "connections are made in another way"
    assert "server_state=self.server_state" in source, "`connect` in the listener gets no books"
    state = ServerState()
    for name in ("connections", "tasks"):
        assert getattr(state, name) == set(), f"ServerState.{name} is gone or no set"
    assert state.default_headers == [], "ServerState.default_headers is gone or no list"


def test_the_date_is_one_of_the_default_headers() -> None:
    source = inspect.getsource(uvicorn.Server.on_tick)
    assert "self.server_state.default_headers = date_header" in source, (
        "responses of ours get their date from ServerState.default_headers"
    )


def test_a_server_that_stops_waits_for_connections_and_cancels_tasks() -> None:
    source = inspect.getsource(uvicorn.Server.shutdown)
    assert "connection.shutdown()" in source, "Connection.shutdown is never called"
    assert "for t in self.server_state.tasks" in source, "running requests are not cut off"
    waits = inspect.getsource(uvicorn.Server._wait_tasks_to_complete)
    for name in ("connections", "tasks"):
        assert f"while self.server_state.{name}" in waits, f"a drain does not wait for {name}"


def test_the_server_can_be_started_and_stopped_from_outside() -> None:
    server = uvicorn.Server(uvicorn.Config(app=lambda: None))
    for name in ("started", "should_exit", "force_exit"):
        assert getattr(server, name) is False, f"Server.{name} is gone or begins as something else"
    assert inspect.isgeneratorfunction(inspect.unwrap(uvicorn.Server.capture_signals)), (
        "Server.capture_signals is no context manager any more; ours must keep uvicorn's hands off "
        "the process's signals"
    )


def test_a_config_takes_a_function_as_protocol_and_a_fraction_of_a_second() -> None:
    parameters = inspect.signature(uvicorn.Config.__init__).parameters
    used = {
        *("http", "ws", "lifespan", "access_log", "proxy_headers", "log_config"),
        *("server_header", "timeout_graceful_shutdown", "backlog"),
    }
    assert used <= parameters.keys(), f"Config lost {used - parameters.keys()}"

    def connect() -> None: ...

    config = uvicorn.Config(
        app=lambda: None,
        http=connect,  # type: ignore[arg-type]
        timeout_graceful_shutdown=0.5,  # type: ignore[arg-type]
        log_config=None,
    )
    config.load()
    assert config.http_protocol_class is connect
    assert config.timeout_graceful_shutdown == 0.5
