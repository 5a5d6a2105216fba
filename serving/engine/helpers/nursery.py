"""The nursery: the process that forks helpers.

It was itself forked while the engine server had all its modules and nothing else: a new helper
shares that memory and is there in a moment, and no lock or device of a running engine is copied
into it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
from collections.abc import Callable

from setproctitle import setproctitle

from serving.engine.helpers.helper import Helper, HelperEnded, Work, help_until_closed
from serving.engine.lifetime import die_with_parent

# What process lists show: whoever looks for engine servers by their command line finds no helpers.
NURSERY_TITLE = "serving: nursery of helpers"
HELPER_TITLE = "serving: helper"
# Work in a helper makes way for the token path.
NICENESS = 10
START_S = 60.0
_PID = struct.Struct("!i")


class Nursery:
    """The process that forks helpers. `fork` it before the engine starts."""

    def __init__(self, control: socket.socket, pid: int) -> None:
        self._control = control
        self._pid = pid
        self._lock = asyncio.Lock()

    @classmethod
    def fork(cls, prepare: Callable[[], Work]) -> Nursery:
        """Fork the nursery. Each helper calls `prepare` once, and its result for each job."""
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                _nurse(theirs, prepare, parent)
            finally:
                os._exit(0)
        theirs.close()
        return cls(ours, pid)

    @property
    def alive(self) -> bool:
        """False once its process has ended: then there will be no new helper. It cannot be forked
        again, as this process now has an engine's threads."""
        if self._pid:
            with contextlib.suppress(ChildProcessError):
                ended, _ = os.waitpid(self._pid, os.WNOHANG)
                if not ended:
                    return True
            self._pid = 0
        return False

    async def helper(self) -> Helper:
        """Fork a helper, and wait until it is ready.

        Raises:
            HelperEnded: it, or the nursery, ended instead.
        """
        async with self._lock:
            pid, fd = await asyncio.to_thread(self._ask)
        helper = await Helper.open(pid, socket.socket(fileno=fd))
        try:
            async with asyncio.timeout(START_S):
                await helper.ready()
        except BaseException as error:
            helper.kill()
            if isinstance(error, TimeoutError):
                raise HelperEnded("not ready in time") from None
            raise
        return helper

    def _ask(self) -> tuple[int, int]:
        try:
            self._control.sendall(b"+")
            said, fds, _, _ = socket.recv_fds(self._control, _PID.size, 1)
        except OSError as error:
            raise HelperEnded(str(error)) from None
        if not fds:
            raise HelperEnded("there is no nursery any more")
        return _PID.unpack(said)[0], fds[0]

    def close(self) -> None:
        """End the nursery; helpers end with their connections."""
        self._control.close()


def _nurse(control: socket.socket, prepare: Callable[[], Work], parent: int) -> None:
    """The nursery's life: fork a helper for each byte that is read."""
    signal.set_wakeup_fd(-1)  # the event loop's, whose other end is our parent's
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for helpers
    _die_with(parent)
    setproctitle(NURSERY_TITLE)
    os.nice(NICENESS)
    nursery = os.getpid()
    while control.recv(1):
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _die_with(nursery)
            setproctitle(HELPER_TITLE)
            with contextlib.suppress(ConnectionError):
                help_until_closed(theirs, prepare())
            return
        theirs.close()
        socket.send_fds(control, [_PID.pack(pid)], [ours.fileno()])
        ours.close()


def _die_with(parent: int) -> None:
    """End with the parent, whether or not that one asked for the same (tests do not)."""
    os.environ["SERVING_ENGINE_PARENT"] = str(parent)
    die_with_parent()
