"""Watches a local cluster from a process that has no Ray in it.

Ray's own library ends the process that it is loaded in when the cluster's GCS is gone, a minute
later and without a word of ours; and when a node's raylet is gone it says nothing at all. So what
starts Ray runs in a child, the driver, and its parent watches that child and the four processes of
Ray that nothing replaces. When one of them ends, what is left is of no use and is ended too.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TextIO

import psutil

from deployments.processes import adopt_orphans, end_descendants, end_with_parent, reap

EXIT_FAILED = 1
EXIT_DIED = 5
# How often it looks for Ray's processes and reaps; an end is noticed at once, in seconds.
LOOK_S = 0.5
# Ray's agents come up within this time of the driver's start, in seconds.
SEARCH_S = 120.0
# What is told to stop has so long, in seconds.
STOP_S = 45.0

# By the name that a process has: what it is called, and its log among the session's. An agent
# comes first: when it ends, its raylet ends itself at once.
RAY_PROCESSES = {
    "ray::DashboardAgent": ("Ray's dashboard agent", "dashboard_agent.log"),
    "ray::RuntimeEnvAgent": ("Ray's runtime environment agent", "runtime_env_agent.log"),
    "gcs_server": ("Ray's GCS", "gcs_server.out"),
    "raylet": ("Ray's raylet", "raylet.out"),
}
# The kernel keeps this many bytes of a process's name.
KERNEL_NAME = 15
_BY_KERNEL_NAME = {name[:KERNEL_NAME]: name for name in RAY_PROCESSES}

# Brings the service up, calls its argument when it is up, and stops at SIGTERM; the exit status.
Drive = Callable[[Callable[[], None]], int]


class Supervisor:
    """Runs `drive` in a child process until a signal comes or something of Ray ends.

    Args:
        drive: what the child does.
        restart: start again when Ray ended. Only what had been up is started again.
    """

    def __init__(self, drive: Drive, *, restart: bool, out: TextIO = sys.stderr) -> None:
        self._drive = drive
        self._restart = restart
        self._out = out
        self._stopping = False
        self._began = time.monotonic()

    def run(self) -> int:
        """Return the exit status, when nothing that was started is left."""
        adopt_orphans()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        while True:
            run = _Run(self._drive)
            reason = self._watch(run)
            run.close()
            if reason is not None:
                self._say(f"{reason}; stopping what is left")
            else:
                self._say("stopping")
            end_descendants(grace_s=3.0 if reason is None else 0.0)
            if reason is None or self._stopping:
                self._say("stopped")
                return 0 if self._stopping else run.status or 0
            if not (self._restart and run.was_up):
                self._say("stopped")
                return EXIT_DIED
            self._say("starting again")

    def _watch(self, run: _Run) -> str | None:
        """Until the run is over: what ended that should not have, as a sentence."""
        deadline = None
        while run.status is None:
            if self._stopping and deadline is None:
                run.stop()
                deadline = time.monotonic() + STOP_S
            if deadline is not None and time.monotonic() > deadline:
                return None
            reason = run.look()
            if reason is not None and deadline is None:
                return reason
        if self._stopping or (not run.was_up and run.status in (0, EXIT_FAILED)):
            return None
        how = f"status {run.status}" if run.status >= 0 else signal.Signals(-run.status).name
        return f"the process that drives Ray ({run.driver}) ended with {how}{run.hint}"

    def _on_signal(self, number: int, frame: Any) -> None:
        if self._stopping:
            end_descendants(grace_s=0.0)
            os._exit(EXIT_FAILED)
        self._stopping = True

    def _say(self, message: str) -> None:
        print(f"[{time.monotonic() - self._began:5.1f} s] {message}", file=self._out, flush=True)


class _Run:
    """One driver, and the processes of Ray that have been found below it."""

    def __init__(self, drive: Drive) -> None:
        self.status: int | None = None
        self.was_up = False
        self._logs: Path | None = None
        self._found: dict[str, tuple[int, int]] = {}
        self._poll = select.poll()
        self._began = time.monotonic()
        self._up_fd, write_fd = os.pipe()
        self.driver = os.fork()
        if self.driver == 0:
            os.close(self._up_fd)
            _be_driver(drive, write_fd)
        os.close(write_fd)
        self._poll.register(self._up_fd, select.POLLIN)
        self._driver_fd = os.pidfd_open(self.driver)
        self._poll.register(self._driver_fd, select.POLLIN)

    @property
    def hint(self) -> str:
        """Where to read on."""
        return f"; Ray's logs: {self._logs}" if self._logs else ""

    def stop(self) -> None:
        """Tell the driver to stop."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.driver, signal.SIGTERM)

    def look(self) -> str | None:
        """Wait a moment; which of Ray's processes has ended, as a sentence."""
        if len(self._found) < len(RAY_PROCESSES) and time.monotonic() < self._began + SEARCH_S:
            self._search()
        # Twice: what ended a moment after the first counts too.
        ready = {fd for fd, _ in (*self._poll.poll(LOOK_S * 1000), *self._poll.poll(0))}
        if self._up_fd in ready:
            self.was_up = bool(os.read(self._up_fd, 1))
            self._poll.unregister(self._up_fd)
        for pid, status in reap():
            if pid == self.driver:
                self.status = status
        ended = [name for name in RAY_PROCESSES if self._found.get(name, (0, -1))[1] in ready]
        for name in ended:
            self._poll.unregister(self._found[name][1])
        if not ended or self.status is not None:
            return None
        what, log = RAY_PROCESSES[ended[0]]
        return f"{what} (process {self._found[ended[0]][0]}) ended; its log: {self._logs}/{log}"

    def _search(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.driver).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess, OSError):
                    # The kernel's name; a command line does not always show the title.
                    name = _BY_KERNEL_NAME.get(process.name()[:KERNEL_NAME])
                    if name is None or name in self._found:
                        continue
                    fd = os.pidfd_open(process.pid)
                    self._found[name] = (process.pid, fd)
                    self._poll.register(fd, select.POLLIN)
                    if name == "gcs_server":
                        self._logs = Path(os.readlink(f"/proc/{process.pid}/fd/1")).parent

    def close(self) -> None:
        """Close the descriptors."""
        for fd in (self._up_fd, self._driver_fd, *(fd for _, fd in self._found.values())):
            os.close(fd)


def _be_driver(drive: Drive, up_fd: int) -> NoReturn:
    """The child: never returns into its parent's code."""
    status = EXIT_FAILED
    try:
        end_with_parent()
        # Of its own, so that Ctrl-C reaches the supervisor alone, which stops things in order.
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        status = drive(lambda: _tell(up_fd))
    except BaseException:  # noqa: BLE001 - whatever it is, it is said, and this process ends
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _tell(up_fd: int) -> None:
    os.write(up_fd, b"1")
