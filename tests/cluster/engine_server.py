"""An engine server by itself, started as its replica would start it: no Ray, no router."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from serving.catalogue.spec import EngineSpec, ImageLimits
from serving.wire.launch import EngineLaunch, EngineReady
from tests.live import ROOT, free_port

TOKEN = "token"
REPLICA = "r#1"


@contextmanager
def engine_server(
    spec: EngineSpec,
    folder: Path,
    images: ImageLimits = ImageLimits(),  # noqa: B008 - frozen
) -> Iterator[EngineReady]:
    """Yield where it listens; it stops at the end. Its output is a file in `folder`."""
    read_fd, write_fd = os.pipe()
    config = EngineLaunch(
        spec=spec.model_dump(),
        replica=REPLICA,
        token=TOKEN,
        ready_fd=write_fd,
        drain_s=1,
        images=images.model_dump(),
    )
    output = folder / "engine.out"
    env = os.environ | spec.env | {"VLLM_PORT": str(free_port())}
    env["SERVING_ENGINE"] = msgspec.json.encode(config).decode()
    env["SERVING_ENGINE_PARENT"] = str(os.getpid())
    with output.open("wb") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "serving.engine.server"],
            env=env,
            cwd=ROOT,
            pass_fds=[write_fd],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    os.close(write_fd)
    try:
        with os.fdopen(read_fd, "rb") as pipe:
            line = pipe.readline()
        assert line, output.read_text()[-4000:]
        yield msgspec.json.decode(line, type=EngineReady)
        server.send_signal(signal.SIGTERM)
        server.wait(30)
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
