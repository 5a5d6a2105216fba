"""Measures what recordings cost a router in memory: many large forms at once.

    python -m loadtests.inside.uploads [--uploads 50] [--megabytes 25] [--seconds 4]

Each client sends its recording evenly over so many seconds, so that all are under way together. The
engine is a double without a model. Printed is the router's own memory (resident and not shared) in
MiB: before, at its peak (looked at every 20 ms), and after. The load generator sends no forms, so
these are sent by aiohttp; nothing of them is timed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from loadtests.inside.ask import KEY
from loadtests.inside.router_alone import MODEL, Candidate, ours

MIB = 1024 * 1024
PIECE = 64 * 1024
PATH = "/v1/audio/transcriptions"
BOUNDARY = "loadtest"


def fields(name: str, content: bytes, more: str = "") -> bytes:
    """One part of a form."""
    head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + content + b"\r\n"


class Slow:
    """A form that is sent evenly over some seconds; the model comes last."""

    def __init__(self, size: int, seconds: float) -> None:
        self._size = size
        self._pause_s = seconds * PIECE / size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield fields("file", b"", '; filename="a.wav"')[:-2]
        for _ in range(self._size // PIECE):
            yield bytes(PIECE)
            await asyncio.sleep(self._pause_s)
        yield b"\r\n" + fields("model", MODEL.encode()) + f"--{BOUNDARY}--\r\n".encode()


async def measure(candidate: Candidate, uploads: int, size: int, seconds: float) -> dict[str, int]:
    """Send them all at once.

    Raises:
        RuntimeError: one was not answered, or lost something on its way.
    """
    process = candidate.process
    before = peak = process.memory_info().rss - process.memory_info().shared
    done = asyncio.Event()

    async def look() -> None:
        nonlocal peak
        while not done.is_set():
            used = process.memory_info()
            peak = max(peak, used.rss - used.shared)
            await asyncio.sleep(0.02)

    async def send(session: aiohttp.ClientSession) -> None:
        headers = {"x-api-key": KEY, "content-type": f"multipart/form-data; boundary={BOUNDARY}"}
        form = Slow(size, seconds)
        async with session.post(candidate.url + PATH, data=form, headers=headers) as response:
            text = await response.text()
            if response.status != 200 or json.loads(text)["bytes"] < size:
                raise RuntimeError(f"{response.status}: {text}")

    watching = asyncio.create_task(look())
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(send(session) for _ in range(uploads)))
    done.set()
    await watching
    after = process.memory_info()
    found = {"before": before, "peak": peak, "after": after.rss - after.shared}
    return {name: value // MIB for name, value in found.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--uploads", type=int, default=50)
    parser.add_argument("--megabytes", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=4.0)
    args = parser.parse_args()
    size = args.megabytes * 1_000_000 // PIECE * PIECE
    with (
        tempfile.TemporaryDirectory() as folder,
        ours(Path(folder), events=1, interval_s=0.0, task="transcribe") as candidate,
    ):
        found = asyncio.run(measure(candidate, args.uploads, size, args.seconds))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
