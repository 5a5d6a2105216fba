"""How an engine core that dies tells the engine server of which requests.

The core's last message to vLLM's frontend says only that it is dead. So before it is sent, the core
writes the IDs of the accused requests into a file in memory (memfd_create(2)) that the engine
server has made. It is opened by its path below /proc, which works however vLLM starts its
processes, and it leaves nothing behind.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

# The path of the file, for the processes that vLLM starts.
VARIABLE = "SERVING_ENGINE_ACCUSED"


class AccusedRequests:
    """The engine server's end: make it before vLLM starts its processes."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("accused")
        os.environ[VARIABLE] = f"/proc/{os.getpid()}/fd/{self._fd}"

    def read(self) -> frozenset[str]:
        """vLLM's own IDs of the requests that the core was running for the first time when an
        exception ended it; empty while it lives."""
        return frozenset(
            os.pread(self._fd, os.fstat(self._fd).st_size, 0).decode().split("\n")[:-1]
        )


def belongs_to_an_engine_server() -> bool:
    """True in the processes that vLLM starts for an engine server, and not in the server's own."""
    found = re.fullmatch(r"/proc/(\d+)/fd/\d+", os.environ.get(VARIABLE, ""))
    return found is not None and int(found[1]) != os.getpid()


def accuse(ids: Sequence[str]) -> None:
    """The core's end. Several cores of one engine (data parallel) may all write."""
    path = os.environ.get(VARIABLE)
    if path is None or not ids:
        return
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, "".join(f"{name}\n" for name in ids).encode())
    finally:
        os.close(fd)
