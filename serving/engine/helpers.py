"""Helper processes, for work on a caller's body that must not stand in other callers' way.

Parsing JSON, checking a body, writing a chat through its template and compiling a grammar take
milliseconds to minutes, hold the interpreter and cannot be stopped within a thread. A helper is
a process: it can be given a deadline and a limit on its memory, and be killed.

Helpers are forked by a process (the nursery) that was itself forked while the engine server had
all its modules and nothing else: a new helper shares that memory and is there in a moment, and no
lock or device of a running engine is copied into it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from setproctitle import setproctitle

from serving.engine.lifetime import die_with_parent
from serving.errors import InvalidRequest, Overloaded

# What process lists show: whoever looks for engine servers by their command line finds no helpers.
NURSERY_TITLE = "serving: nursery of helpers"
HELPER_TITLE = "serving: helper"
# Work in a helper makes way for the token path.
NICENESS = 10
# How often a running job is looked at.
LOOK_S = 0.05
# A job whose caller has left may end within this time; then its helper is killed. A helper that is
# ready costs less than a new one.
GRACE_S = 0.5
START_S = 60.0
_LENGTH = struct.Struct("!Q")
_PID = struct.Struct("!i")
_PAGE = os.sysconf("SC_PAGE_SIZE")

Work = Callable[[bytes], bytes]


class HelperEnded(Exception):
    """The helper ended before it had answered."""


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
                _help(theirs, prepare())
            return
        theirs.close()
        socket.send_fds(control, [_PID.pack(pid)], [ours.fileno()])
        ours.close()


def _die_with(parent: int) -> None:
    """End with the parent, whether or not that one asked for the same (tests do not)."""
    os.environ["SERVING_ENGINE_PARENT"] = str(parent)
    die_with_parent()


def _help(connection: socket.socket, work: Work) -> None:
    """A helper's life: one job after the other."""
    _send(connection, b"")
    while (job := _receive(connection)) is not None:
        _send(connection, work(job))


def _send(connection: socket.socket, payload: bytes) -> None:
    connection.sendall(_LENGTH.pack(len(payload)))
    connection.sendall(payload)


def _receive(connection: socket.socket) -> bytes | None:
    """The next job; None when the engine server has closed."""
    head = _exactly(connection, _LENGTH.size)
    return None if head is None else _exactly(connection, _LENGTH.unpack(head)[0])


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    found = bytearray(size)
    view, got = memoryview(found), 0
    while got < size:
        count = connection.recv_into(view[got:])
        if count == 0:
            return None
        got += count
    return bytes(found)


class Helper:
    """One helper, as the engine server sees it."""

    def __init__(
        self,
        pid: int,
        handle: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._pid = pid
        self._handle = handle
        self._reader = reader
        self._writer = writer
        self._resident_at_start = 0
        self.killed = False

    @classmethod
    async def open(cls, pid: int, connection: socket.socket) -> Helper:
        # A handle and not the number: the number may be another process's when it is killed.
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            connection.close()
            raise HelperEnded("it ended at once") from None
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        return cls(pid, handle, reader, writer)

    async def ready(self) -> None:
        """Wait until it takes jobs."""
        await self._answer()
        self._resident_at_start = self._resident()

    async def ask(self, job: bytes) -> bytes:
        """Run one job.

        Raises:
            HelperEnded: it ended instead of answering.
        """
        self._writer.write(_LENGTH.pack(len(job)))
        self._writer.write(job)
        return await self._answer()

    async def _answer(self) -> bytes:
        try:
            (size,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            return await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, OSError):
            raise HelperEnded("it ended before it had answered") from None

    @property
    def grown(self) -> int:
        """Bytes of memory that it has taken since it was ready."""
        return self._resident() - self._resident_at_start

    def _resident(self) -> int:
        try:
            return int(Path(f"/proc/{self._pid}/statm").read_text().split()[1]) * _PAGE
        except (OSError, IndexError):
            return 0  # it has ended, which its connection tells

    def kill(self) -> None:
        """End it, whatever it does."""
        if self.killed:
            return
        self.killed = True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        os.close(self._handle)
        self._writer.close()


class Helpers:
    """A bounded number of helpers, which are started when they are needed.

    Args:
        most: helpers at a time.
        seconds: of one job, from its start to its end.
        memory_bytes: that a helper may take for a job.
        waiting: jobs that may wait for a helper.
    """

    def __init__(
        self,
        nursery: Nursery,
        *,
        most: int,
        seconds: float,
        memory_bytes: int,
        waiting: int = 256,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._nursery = nursery
        self._seconds = seconds
        self._memory = memory_bytes
        self._free = asyncio.Semaphore(most)
        self._most_waiting = waiting
        self._waiting = 0
        self._idle: list[Helper] = []
        self._leftover: set[asyncio.Task[None]] = set()
        self._clock = clock

    async def run(self, job: bytes) -> bytes:
        """What the work of a helper makes of `job`. Cancelling this ends the work.

        Raises:
            InvalidRequest: it takes too long or too much memory, or it ends the helper.
            Overloaded: too many jobs wait.
        """
        if self._waiting >= self._most_waiting:
            raise Overloaded("too many large requests wait to be prepared", retry_after_s=1.0)
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            helper = self._idle.pop() if self._idle else await self._nursery.helper()
        except HelperEnded as error:
            self._free.release()
            raise Overloaded(f"no helper process can be started: {error}") from None
        except BaseException:
            self._free.release()
            raise
        asking = asyncio.ensure_future(helper.ask(job))
        try:
            return await self._watch(helper, asking)
        finally:
            self._return(helper, asking)

    async def _watch(self, helper: Helper, asking: asyncio.Future[bytes]) -> bytes:
        clock = self._clock or asyncio.get_running_loop().time
        deadline = clock() + self._seconds
        while not asking.done():
            await asyncio.wait({asking}, timeout=LOOK_S)
            if asking.done():
                break
            if clock() > deadline:
                helper.kill()
                raise InvalidRequest(
                    f"this request takes longer than {self._seconds:g} s to prepare (its JSON, "
                    "chat template, tokens and grammar together); make it smaller"
                )
            if helper.grown > self._memory:
                helper.kill()
                raise InvalidRequest(
                    f"this request takes more than {self._memory >> 20} MiB to prepare (its JSON, "
                    "chat template, tokens and grammar together); make it smaller"
                )
        try:
            return asking.result()
        except HelperEnded:
            helper.kill()
            raise InvalidRequest(
                "this request cannot be prepared: the process that did so ended; make it smaller"
            ) from None

    def _return(self, helper: Helper, asking: asyncio.Future[bytes]) -> None:
        """Make way for the next job, now or when the job that was left has ended."""
        if asking.done() and not asking.cancelled() and asking.exception() is None:
            self._put(helper)
            return
        if helper.killed:
            asking.cancel()
            self._free.release()
            return
        task = asyncio.ensure_future(self._let_end(helper, asking))
        self._leftover.add(task)
        task.add_done_callback(self._leftover.discard)

    async def _let_end(self, helper: Helper, asking: asyncio.Future[bytes]) -> None:
        await asyncio.wait({asking}, timeout=GRACE_S)
        if asking.done() and not asking.cancelled() and asking.exception() is None:
            self._put(helper)
            return
        asking.cancel()
        helper.kill()
        self._free.release()

    def _put(self, helper: Helper) -> None:
        # What a job has left behind is not carried along for ever.
        if helper.grown > self._memory // 2:
            helper.kill()
        else:
            self._idle.append(helper)
        self._free.release()

    @property
    def alive(self) -> bool:
        """See `Nursery.alive`."""
        return self._nursery.alive

    def close(self) -> None:
        """End all helpers that have nothing to do, and the nursery."""
        for helper in self._idle:
            helper.kill()
        self._idle.clear()
        self._nursery.close()
