"""What a replica tells the engine server it starts, and what the server answers when ready."""

from __future__ import annotations

import msgspec


class EngineLaunch(msgspec.Struct, frozen=True):
    """What the parent tells the engine server.

    `engine` names the class that runs the model (`module:Class` with a `start(spec, images)`);
    empty means the one for the model's `runtime`. Tests name a test double here. `images` are the
    limits on images in the models file (`ImageLimits`). `stuck_s`: see `Settings.stuck_s`.
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


class EngineReady(msgspec.Struct, frozen=True):
    """Where the engine server listens."""

    link_port: int
    ops_port: int
    max_model_len: int
