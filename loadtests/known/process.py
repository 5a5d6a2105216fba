"""The known server as a process of its own, as a test or check starts it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from loadtests.known.log import Served, read_log


class KnownProcess:
    """A running server. `stop` ends it and returns its log."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self._process = process
        self._log = log
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    @classmethod
    def start(cls, log: Path, *options: str, **shape: float) -> Self:
        """Start it; `shape` has the fields of `script.Shape`, `options` are of its command."""
        settings = [f"--shape={name}={value}" for name, value in shape.items()]
        process = subprocess.Popen(
            [sys.executable, "-m", "loadtests.known.server", "--log", log, *settings, *options],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the known server ended with status {process.wait()}")
        return cls(process, int(line), log)

    def stop(self) -> list[Served]:
        """End it, and return what it did."""
        self._process.send_signal(signal.SIGTERM)
        if self._process.wait(timeout=30) != 0:
            raise RuntimeError(f"the known server ended with {self._process.returncode}")
        return read_log(self._log)

    def kill(self) -> None:
        """End it, if it still runs."""
        self._process.kill()
        self._process.wait()
