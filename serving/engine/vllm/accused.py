"""How an engine core that dies tells the engine server of which requests.

The core's last message to vLLM's frontend says only that it is dead. So before it is sent, the core
writes which requests it may have died of, a line of JSON, into a file in memory (memfd_create(2))
that the engine server has made. It is opened by its path below /proc, which works however vLLM
starts its processes, and it leaves nothing behind.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import msgspec

# The path of the file, for the processes that vLLM starts.
VARIABLE = "SERVING_ENGINE_ACCUSED"

# The requests that a core may have died of, by ID: None for one that it surely died of, else how
# many tokens of its answer a request had that ran in the failing step.
Charges = dict[str, int | None]

_decode = msgspec.json.Decoder(Charges).decode


class AccusedRequests:
    """The engine server's end: make it before vLLM starts its processes."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("accused")
        os.environ[VARIABLE] = f"/proc/{os.getpid()}/fd/{self._fd}"

    def read(self) -> Mapping[str, int | None]:
        """The charges, by vLLM's own IDs of the requests; none while the core lives."""
        lines = os.pread(self._fd, os.fstat(self._fd).st_size, 0).split(b"\n")[:-1]
        found: Charges = {}
        for line in lines:
            found |= _decode(line)
        return found


def belongs_to_an_engine_server() -> bool:
    """True in the processes that vLLM starts for an engine server, and not in the server's own."""
    found = re.fullmatch(r"/proc/(\d+)/fd/\d+", os.environ.get(VARIABLE, ""))
    return found is not None and int(found[1]) != os.getpid()


def accuse(charges: Charges) -> None:
    """The core's end. Several cores of one engine (data parallel) may all write."""
    path = os.environ.get(VARIABLE)
    if path is None or not charges:
        return
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, msgspec.json.encode(charges) + b"\n")
    finally:
        os.close(fd)
