"""What the directory knows about a router or an engine replica."""

from __future__ import annotations

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """A replica or router as the directory lists it. `ops` is its host:port for `/metrics`,
    `start_s` how long it took to start, in seconds, `code` the digest of the code that it runs
    (`deployments/code.py`)."""

    id: str
    kind: str  # "engine" or "router"
    model: str
    host: str
    port: int
    ops: str
    start_s: float | None = None
    code: str = ""
