"""Starts engine servers, each by itself or as a fork of a zygote, and watches them.

A server that is started by itself imports its engine first. `Zygotes` finds the zygote
(`zygote.py`) of an environment on this node, or starts it. What goes wrong with a zygote costs
time and nothing else: the server is then started by itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from serving.wire.launch import Ended, EngineLaunch, EngineReady, Forked, ForkServer

# A fork waits for the zygote's imports, and for other forks.
FORK_S = 120.0
# A server of a zygote that cannot say its status any more.
STATUS_UNKNOWN = -255
# Variables that nothing reads as a process begins or while an engine is imported, and that differ
# from replica to replica. Every other makes another zygote.
OF_ONE_REPLICA = ("RAY_", "SERVING_")
OF_ONE_REPLICA_NAMES = frozenset(("CUDA_VISIBLE_DEVICES", "VLLM_PORT"))


class EngineProcess:
    """An engine server that was started. `pid` is also that of its process group."""

    def __init__(self, pid: int, ready: IO[bytes]) -> None:
        self.pid = pid
        self._ready = ready

    def ready(self) -> EngineReady | None:
        """Wait until it is ready; None if it ended before."""
        with self._ready as pipe:
            line = pipe.readline()
        return msgspec.json.decode(line, type=EngineReady) if line else None

    def poll(self) -> int | None:
        """Its exit status, as `subprocess.Popen.poll`."""
        raise NotImplementedError

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; as `subprocess.Popen.wait`.

        Raises:
            subprocess.TimeoutExpired
        """
        raise NotImplementedError

    def terminate(self) -> None:
        """Tell it to drain and end."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill_group(self) -> None:
        """End every process of its group, whether or not it still runs itself."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


class _Spawned(EngineProcess):
    def __init__(self, process: subprocess.Popen[bytes], ready: IO[bytes]) -> None:
        super().__init__(process.pid, ready)
        self._process = process

    def poll(self) -> int | None:
        return self._process.poll()

    def wait(self, timeout: float | None = None) -> int:
        return self._process.wait(timeout)


class _Forked(EngineProcess):
    """
    Args:
        zygote: on which the zygote tells the status.
        alive: the pipe's end with which the server dies.
    """

    def __init__(
        self, pid: int, pidfd: int, zygote: socket.socket, alive: int, ready: IO[bytes]
    ) -> None:
        super().__init__(pid, ready)
        self._pidfd = pidfd
        self._zygote = zygote
        self._alive = alive
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None and self._ended(0):
            self._status = self._end()
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        if self._status is None:
            if not self._ended(timeout):
                raise subprocess.TimeoutExpired("engine server", timeout or 0.0)
            self._status = self._end()
        return self._status

    def _ended(self, timeout: float | None) -> bool:
        look = select.poll()
        look.register(self._pidfd, select.POLLIN)
        return bool(look.poll(None if timeout is None else timeout * 1000))

    def _end(self) -> int:
        """The status that the zygote tells; it reaps the server at once, or is dead itself."""
        self._zygote.settimeout(1.0)
        try:
            with self._zygote, self._zygote.makefile("rb") as said:
                return msgspec.json.decode(said.readline(), type=Ended).status
        except (OSError, msgspec.MsgspecError):
            return STATUS_UNKNOWN
        finally:
            os.close(self._pidfd)
            os.close(self._alive)


@dataclass(frozen=True)
class Zygotes:
    """The zygotes of one user on this node.

    Args:
        until: the process with which they end, Ray's node process.
        code: a digest of the code that a zygote must have.
        output: the folder of their outputs; None: this process's.
    """

    until: int
    code: str
    output: str | None = None

    def path(self, env: Mapping[str, str], cwd: str) -> Path:
        """The socket of the zygote for an environment.

        Raises:
            OSError: the folder is not this user's alone.
        """
        folder = Path(tempfile.gettempdir()) / f"serving-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise PermissionError(f"{folder} is open to others; remove it")
        with open(f"/proc/{self.until}/stat") as file:
            started = file.read().rpartition(")")[2].split()[19]
        own = sorted(item for item in env.items() if not _of_one_replica(item[0]))
        key = (self.until, started, self.code, sys.executable, cwd, own)
        return folder / f"zygote-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.sock"

    def connect(self, env: Mapping[str, str], cwd: str) -> socket.socket:
        """A connection to the zygote for an environment, which is started if there is none.

        Raises:
            OSError: there is none, and it does not start.
        """
        path = self.path(env, cwd)
        with open(path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                return _connected(path)
            with contextlib.ExitStack() as stack:
                stream = None
                if self.output:
                    name = os.path.join(self.output, f"{path.stem}.out")
                    stream = stack.enter_context(open(name, "ab"))
                started = subprocess.run(
                    [sys.executable, "-m", "serving.engine.zygote", str(path), str(self.until)],
                    env=dict(env),
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=stream,
                    timeout=FORK_S,
                    check=False,
                )
            if started.returncode:
                raise OSError(f"the zygote ended with status {started.returncode}")
            return _connected(path)


def spawn(launch: EngineLaunch, env: Mapping[str, str], output: str | None) -> EngineProcess:
    """Start an engine server by itself.

    Args:
        output: the file for its output; None: this process's.
    """
    ready, ready_fd = os.pipe()
    launch = msgspec.structs.replace(launch, ready_fd=ready_fd)
    own = {
        "SERVING_ENGINE": msgspec.json.encode(launch).decode(),
        "SERVING_ENGINE_PARENT": str(os.getpid()),
    }
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, ready_fd)
        stream = stack.enter_context(open(output, "ab")) if output else None
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.engine.server"],
            env={**env, **own},
            pass_fds=[ready_fd],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            # A group of its own, so that whatever the engine started can be ended with it.
            start_new_session=True,
        )
    return _Spawned(process, os.fdopen(ready, "rb"))


def fork(
    zygotes: Zygotes,
    launch: EngineLaunch,
    env: Mapping[str, str],
    output: str | None,
) -> EngineProcess:
    """Start an engine server as a fork of a zygote.

    Raises:
        OSError: there is no zygote, or it could not.
    """
    cwd = os.getcwd()
    asked = msgspec.json.encode(ForkServer(launch, dict(env), cwd)) + b"\n"
    ready, ready_fd = os.pipe()
    alive_fd, alive = os.pipe()
    with contextlib.ExitStack() as failed, contextlib.ExitStack() as sent:
        for fd in (ready, alive):
            failed.callback(os.close, fd)
        for fd in (ready_fd, alive_fd):
            sent.callback(os.close, fd)
        output_fd = 1
        if output:
            output_fd = sent.enter_context(open(output, "ab")).fileno()
        zygote = failed.enter_context(zygotes.connect(env, cwd))
        zygote.settimeout(FORK_S)
        done = socket.send_fds(zygote, [asked], [ready_fd, output_fd, alive_fd])
        if rest := asked[done:]:
            # Sending nothing would fail too, where the zygote has refused and closed by now.
            zygote.sendall(rest)
        data, files, _, _ = socket.recv_fds(zygote, 1 << 16, 1)
        if not data:
            raise ConnectionResetError("the zygote ended")
        answer = msgspec.json.decode(data, type=Forked)
        if answer.problem or not files:
            raise OSError(f"the zygote could not: {answer.problem}")
        failed.pop_all()
        return _Forked(answer.pid, files[0], zygote, alive, os.fdopen(ready, "rb"))


def _of_one_replica(name: str) -> bool:
    return name.startswith(OF_ONE_REPLICA) or name in OF_ONE_REPLICA_NAMES


def _connected(path: Path) -> socket.socket:
    zygote = socket.socket(socket.AF_UNIX)
    try:
        zygote.connect(str(path))
    except BaseException:
        zygote.close()
        raise
    return zygote
