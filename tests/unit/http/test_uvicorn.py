"""What `serving/http/listener.py` takes for granted of uvicorn, tested on the installed version.

The listener subclasses uvicorn's protocol, which is no public interface, so the version is pinned
exactly. When a new version fails here, each message says what to look at.
"""

from __future__ import annotations

import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import uvicorn
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

ROOT = Path(__file__).parents[3]


def test_the_pin_is_exact_and_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pin,) = [line for line in project["dependencies"] if line.startswith("uvicorn")]
    assert pin == f"uvicorn=={version('uvicorn')}", (
        f"pyproject.toml pins {pin}, installed is {version('uvicorn')}: go through this file and "
        "serving/http/listener.py with the new source, then move the pin"
    )


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("connection_made", ["self", "transport"]),
        ("connection_lost", ["self", "exc"]),
        ("data_received", ["self", "data"]),
        ("on_message_begin", ["self"]),
        ("on_headers_complete", ["self"]),
        ("send_400_response", ["self", "msg"]),
    ],
)
def test_the_protocol_has_the_methods_we_extend(name: str, parameters: list[str]) -> None:
    method = getattr(HttpToolsProtocol, name, None)
    assert method is not None, f"HttpToolsProtocol.{name} is gone; our override is never called"
    found = list(inspect.signature(method).parameters)
    assert found == parameters, f"HttpToolsProtocol.{name} takes {found} now"


def test_the_protocol_has_the_attributes_we_read() -> None:
    source = inspect.getsource(HttpToolsProtocol)
    for name in ("loop", "transport", "cycle", "scope", "flow"):
        assert f"self.{name}" in source, f"HttpToolsProtocol.{name} is gone"


def test_the_scope_is_read_before_the_request_s_task_begins() -> None:
    """`on_headers_complete` makes the task; our override then still adds to its scope."""
    source = inspect.getsource(HttpToolsProtocol.on_headers_complete)
    starts = inspect.getsource(HttpToolsProtocol._start_asgi_task)
    assert "self._start_asgi_task(self.cycle" in source + starts[:0], "no task for a request"
    assert "loop.create_task" in starts, (
        "on_headers_complete does not start a task any more; a scope that is extended after it may "
        "be too late"
    )


def test_a_cycle_has_what_a_part_is_written_by() -> None:
    names = {"flow", "chunked_encoding", "response_complete", "disconnected", "transport"}
    source = inspect.getsource(RequestResponseCycle)
    missing = {name for name in names if f"self.{name}" not in source}
    assert not missing, f"RequestResponseCycle lost {missing}; `_write` in the listener reads them"
    assert "write_paused" in inspect.getsource(FlowControl), "FlowControl.write_paused is gone"


def test_a_chunk_is_framed_as_we_frame_it() -> None:
    source = inspect.getsource(RequestResponseCycle.send)
    assert r'[b"%x\r\n" % len(body), body, b"\r\n"]' in source, (
        "RequestResponseCycle.send frames a chunk in another way; `_write` in the listener does "
        "what it did"
    )


def test_status_lines_are_whole() -> None:
    line = httptools_impl.STATUS_LINE[431]
    assert line == b"HTTP/1.1 431 Request Header Fields Too Large\r\n", line


def test_the_server_can_be_started_and_stopped_from_outside() -> None:
    server = uvicorn.Server(uvicorn.Config(app=lambda: None))
    for name in ("started", "should_exit", "force_exit"):
        assert getattr(server, name) is False, f"Server.{name} is gone or begins as something else"
    assert inspect.isgeneratorfunction(inspect.unwrap(uvicorn.Server.capture_signals)), (
        "Server.capture_signals is no context manager any more; ours must keep uvicorn's hands off "
        "the process's signals"
    )


def test_a_config_takes_a_protocol_class_and_a_fraction_of_a_second() -> None:
    parameters = inspect.signature(uvicorn.Config.__init__).parameters
    used = {
        *("http", "ws", "lifespan", "access_log", "proxy_headers", "log_config"),
        *("server_header", "timeout_keep_alive", "timeout_graceful_shutdown", "backlog"),
    }
    assert used <= parameters.keys(), f"Config lost {used - parameters.keys()}"
    config = uvicorn.Config(
        app=lambda: None, http=HttpToolsProtocol, timeout_graceful_shutdown=0.5, log_config=None
    )
    config.load()
    assert config.http_protocol_class is HttpToolsProtocol
    assert config.timeout_graceful_shutdown == 0.5
