"""Signals and pipes, which need a real process and a real socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.unit.cli.conftest import COMPLETE, ROOT, frame


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
