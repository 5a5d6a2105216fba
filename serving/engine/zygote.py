"""The zygote: a process that has an engine's imports, and from which engine servers are forked.

    python -m serving.engine.zygote SOCKET PID

Importing vLLM takes 5 s of CPU, which is most of what a small model needs to start. The zygote does
it once; a server that is forked from it begins with it done, and shares the memory. There is one
for each environment on a node, since what a variable says may count as a process begins or while
modules are imported. `launcher.py` starts it and asks it, through a Unix socket that only its user
may open.

It ends when process PID (Ray's node process) does, or when it has had no servers for a while. Its
servers do not die with it, but with whoever asked for them: see `_die_with_pipe`.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
import time
import traceback

import msgspec
from setproctitle import setproctitle

from serving.engine import server
from serving.wire.launch import Ended, Forked, ForkServer

TITLE = "serving: zygote of engine servers"
# Seconds without servers after which it ends.
IDLE_S = 120.0
# Seconds that the rest of a message may take, and how many files come with it.
MESSAGE_S = 5.0
FILES = 3
# fcntl.h of Linux; Python's fcntl does not name it before 3.12.
_F_SETSIG = 10


class Zygote:
    """Forks servers until its time has come."""

    def __init__(self, listener: socket.socket, until: int) -> None:
        """
        Args:
            until: pidfd of the process with which it ends.
        """
        self._listener = listener
        self._until = until
        # By the pidfd of each server, its process ID and who asked for it.
        self._servers: dict[int, tuple[int, socket.socket]] = {}
        self._idle_since = time.monotonic()
        self._selector = selectors.DefaultSelector()
        for file in (listener, until):
            self._selector.register(file, selectors.EVENT_READ)

    def run(self) -> None:
        """Return when it has nothing left to wait for."""
        while self._servers or time.monotonic() - self._idle_since < IDLE_S:
            for key, _ in self._selector.select(IDLE_S):
                if key.fd == self._until:
                    return
                if key.fd in self._servers:
                    self._tell_end(key.fd)
                else:
                    self._answer(self._listener.accept()[0])

    def _answer(self, caller: socket.socket) -> None:
        """Do what one connection asks for; it stays open until the server has ended."""
        caller.settimeout(MESSAGE_S)
        files: list[int] = []
        try:
            asked, files = _receive(caller)
            pidfd, pid = self._fork(asked, files, caller)
            self._servers[pidfd] = (pid, caller)
            self._selector.register(pidfd, selectors.EVENT_READ)
            socket.send_fds(caller, [msgspec.json.encode(Forked(pid)) + b"\n"], [pidfd])
        except Exception as error:  # noqa: BLE001 - the caller then starts a server by itself
            traceback.print_exc()
            with contextlib.suppress(OSError):
                caller.sendall(msgspec.json.encode(Forked(problem=repr(error))) + b"\n")
            caller.close()
        finally:
            for file in files:
                os.close(file)

    def _fork(self, asked: ForkServer, files: list[int], caller: socket.socket) -> tuple[int, int]:
        module = server.engine_class(asked.launch).partition(":")[0]
        importlib.import_module(module)
        if (threads := len(os.listdir("/proc/self/task"))) != 1:
            # What the others hold at this moment would be held for ever in the child.
            raise RuntimeError(f"{module} started threads: {threads}")
        gc.collect()
        gc.freeze()  # a collection in a child would write to the memory that all share
        sys.stdout.flush()
        sys.stderr.flush()
        if (pid := os.fork()) == 0:
            try:
                self._close()
                caller.close()
                _become(asked, files)
            except BaseException:  # noqa: BLE001 - it must not go on as a second zygote
                traceback.print_exc()
            finally:
                os._exit(1)
        return os.pidfd_open(pid), pid

    def _tell_end(self, pidfd: int) -> None:
        pid, caller = self._servers.pop(pidfd)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(OSError), caller:
            caller.sendall(msgspec.json.encode(Ended(status)) + b"\n")
        self._idle_since = time.monotonic()

    def _close(self) -> None:
        """Close what belongs to the zygote, in a child."""
        self._selector.close()
        self._listener.close()
        os.close(self._until)
        for pidfd, (_, caller) in self._servers.items():
            os.close(pidfd)
            caller.close()


def _receive(caller: socket.socket) -> tuple[ForkServer, list[int]]:
    """One line of JSON, and the files that came with its beginning."""
    data, files, _, _ = socket.recv_fds(caller, 1 << 16, FILES)
    while not data.endswith(b"\n"):
        more = caller.recv(1 << 16)
        if not more:
            raise EOFError("half a message")
        data += more
    if len(files) != FILES:
        raise ValueError(f"{len(files)} files came with it")
    return msgspec.json.decode(data, type=ForkServer), files


def _become(asked: ForkServer, files: list[int]) -> None:
    """Be the engine server, in the child; does not return."""
    ready, output, alive = files
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    _die_with_pipe(alive)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    os.chdir(asked.cwd)
    os.environ.clear()
    os.environ.update(asked.env)
    # So that the processes it starts die with it; see lifetime.py.
    os.environ["SERVING_ENGINE_PARENT"] = str(os.getpid())
    launch = msgspec.structs.replace(asked.launch, ready_fd=ready)
    server.set_title(launch)
    server.serve(launch)


def _die_with_pipe(fd: int) -> None:
    """Have the kernel kill this process when the other end of a pipe is closed.

    `PR_SET_PDEATHSIG` would do so when the zygote ends, which is the parent; the pipe's other end
    is held by the replica. fcntl(2): a file with O_ASYNC sends its owner the signal of F_SETSIG.
    """
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):  # it is open, and nothing was written
        if not os.read(fd, 1):
            os._exit(1)  # closed before it could be watched


def main() -> None:
    """Entry point of the process."""
    path, until = sys.argv[1], os.pidfd_open(int(sys.argv[2]))
    setproctitle(TITLE)
    listener = socket.socket(socket.AF_UNIX)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    os.umask(0o077)
    listener.bind(path)
    listener.listen()
    # The caller goes on, and is no parent: Ray ends what its workers have started with them.
    if os.fork():
        os._exit(0)
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    mine = os.stat(path).st_ino
    Zygote(listener, until).run()
    with contextlib.suppress(FileNotFoundError):
        if os.stat(path).st_ino == mine:
            os.unlink(path)
    os._exit(0)


if __name__ == "__main__":
    main()
