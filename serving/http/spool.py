"""Large bodies on their way through a router: on disk, and not in its memory.

As nginx, Starlette and others do: a body is kept in memory up to `MEMORY_BYTES` and in a file
above that. The file has no name, so nothing is left of it when its request ends, or the process.
Passing a body on while it comes would need no disk, but then a replica holds the request of every
slow client, and none could be sent to another replica when the first one dies.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from serving.errors import Overloaded
from serving.wire.body import Body

# Of one body; it is above what most recordings of a sentence have.
MEMORY_BYTES = 256 * 1024
# On disk, and not in memory as /tmp often is.
FOLDER = "/var/tmp"


class Spool:
    """One body. `read` may be called until `close`, from any thread."""

    def __init__(self, take_room: Callable[[int], None], folder: str) -> None:
        self._take_room = take_room
        self._folder = folder
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def body(self) -> Body:
        """What was written: the bytes themselves, or this, if they are on disk."""
        return self if self._file is not None else bytes(self._memory)

    async def write(self, data: bytes) -> None:
        """Add to the body.

        Raises:
            Overloaded: there is no room for it, or the disk failed.
        """
        if self._file is None and self._size + len(data) <= MEMORY_BYTES:
            self._memory += data
            self._size += len(data)
            return
        if self._file is None:
            self._take_room(self._size)
        self._take_room(len(data))
        try:
            await asyncio.to_thread(self._write, data)
        except OSError as error:
            raise Overloaded(f"this router cannot keep the body: {error.strerror}") from error
        self._size += len(data)

    def _write(self, data: bytes) -> None:
        if self._file is None:
            # Unbuffered: what is written is there for `read`.
            self._file = tempfile.TemporaryFile(buffering=0, dir=self._folder)  # noqa: SIM115
            data, self._memory = bytes(self._memory) + data, bytearray()
        while data:
            data = data[self._file.write(data) :]

    def read(self, at: int, size: int) -> bytes:
        """See `OnDisk.read`."""
        if self._file is None:
            raise ValueError("it is not on disk")
        return os.pread(self._file.fileno(), size, at)

    def close(self) -> None:
        """Nothing is left of the body. A file is closed in a thread: giving its blocks back may
        take a disk some time."""
        self._memory.clear()
        if self._file is not None:
            asyncio.get_running_loop().run_in_executor(None, self._file.close)


class Spools:
    """Makes the spools of a router.

    Args:
        folder: where their files are; None: `FOLDER`, or Python's folder for temporary files where
            that cannot be written to.
        room: of all files together, in bytes.
    """

    def __init__(self, folder: str | None, room: int) -> None:
        self._folder = folder or (FOLDER if os.access(FOLDER, os.W_OK) else tempfile.gettempdir())
        self._room = room
        self.used = 0

    @contextmanager
    def open(self) -> Iterator[Spool]:
        """A spool for as long as the block runs."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if self.used + size > self._room:
                raise Overloaded(
                    f"this router has {self.used} bytes of recordings on disk and room for "
                    f"{self._room}; try again",
                    retry_after_s=1.0,
                )
            taken += size
            self.used += size

        spool = Spool(take, self._folder)
        try:
            yield spool
        finally:
            spool.close()
            self.used -= taken
