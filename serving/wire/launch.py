"""What a replica tells the engine server, or the zygote that forks it, and what they answer."""

from __future__ import annotations

import msgspec


class EngineLaunch(msgspec.Struct, frozen=True):
    """What the parent tells the engine server.

    `engine` names the class that runs the model (`module:Class` with a `start(spec, images)`);
    empty means the one for the model's `runtime`. Tests name a test double here. `images` are the
    limits on images in the models file (`ImageLimits`). `stuck_s`, `link_port`, `ops_port`: see
    `Settings`.
    """

    spec: dict[str, object]
    replica: str
    host: str = "127.0.0.1"
    token: str = ""
    metrics_token: str = ""
    log_dir: str | None = None
    ready_fd: int | None = None
    drain_s: float = 30.0
    stuck_s: float = 60.0
    engine: str = ""
    images: dict[str, object] = {}
    link_port: int = 0
    ops_port: int = 0


class EngineReady(msgspec.Struct, frozen=True):
    """Where the engine server listens."""

    link_port: int
    ops_port: int
    max_model_len: int


class ForkServer(msgspec.Struct, frozen=True):
    """What a zygote is told (`serving/engine/zygote.py`). Three files come with it: where the
    server says that it is ready, where its output goes, and a pipe with whose other end it dies."""

    launch: EngineLaunch
    env: dict[str, str]
    cwd: str


class Forked(msgspec.Struct, frozen=True):
    """A zygote's answer. With the ID of a process comes its pidfd (pidfd_open(2)). `problem`: why
    there is none."""

    pid: int = 0
    problem: str = ""


class Ended(msgspec.Struct, frozen=True):
    """What a zygote says when the server has ended: as `subprocess.Popen.returncode`."""

    status: int
