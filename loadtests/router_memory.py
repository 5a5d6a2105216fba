"""Checks that a router's memory stays flat over a million requests.

    python -m loadtests.router_memory [--requests 1000000]

Our router runs alone in front of an echo engine, a double without a model. On connections that stay
open it gets whole completions, streams, refusals and unknown models, each with a request ID of its
own. The program prints the router's memory as it goes, and fails (exit 1) if that grew by more than
4 MB after the first fifth of the requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

import psutil

from loadtests.client import CREATE_COMPLETION
from loadtests.router_alone import MODEL, ours

CONNECTIONS = 32
SAMPLES = 50
# So much is the allocator's noise. A leak of five bytes per request would be as much.
SLACK_BYTES = 4 * 1024 * 1024


def request(number: int) -> tuple[bytes, bytes]:
    """Return a request and the status it must get."""
    body: dict[str, object] = {"model": MODEL, "prompt": f"number {number}"}
    status = b"200"
    if number % 20 == 0:
        body["stream"] = True
    elif number % 20 == 1:
        body["model"], status = f"unknown-{number}", b"404"
    elif number % 20 == 2:
        body["temperature"], status = number, b"422"
    data = json.dumps(body).encode()
    head = (
        f"POST {CREATE_COMPLETION} HTTP/1.1\r\nhost: x\r\nx-api-key: sk-local\r\n"
        f"x-request-id: request-{number}\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data, status


async def client(port: int, numbers: range) -> None:
    """Send these requests one after the other on one connection.

    Raises:
        RuntimeError: a request got another status than it must get.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in numbers:
        data, status = request(number)
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        if head.split(b" ", 2)[1] != status:
            raise RuntimeError(f"request {number}: {head!r}")
        if b"transfer-encoding: chunked" in head:
            await reader.readuntil(b"0\r\n\r\n")
        else:
            length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
    writer.close()


async def run(port: int, router: psutil.Process, requests: int) -> list[int]:
    """Send the requests in parts; return the router's memory in bytes after each part."""
    part = requests // SAMPLES // CONNECTIONS
    samples, started = [], time.monotonic()
    for sample in range(SAMPLES):
        first = sample * part * CONNECTIONS
        starts = range(first, first + part * CONNECTIONS, part)
        await asyncio.gather(*(client(port, range(at, at + part)) for at in starts))
        samples.append(router.memory_info().rss)
        done = (sample + 1) * part * CONNECTIONS
        print(
            f"{done:9} requests {samples[-1] / 1e6:7.1f} MB "
            f"{done / (time.monotonic() - started):6.0f}/s",
            file=sys.stderr,
        )
    return samples


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=1_000_000)
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="router-") as folder,
        ours(Path(folder), events=1, interval_s=0.0) as router,
    ):
        port = int(router.url.rpartition(":")[2])
        samples = asyncio.run(run(port, router.process, args.requests))
    settled, last = samples[SAMPLES // 5], samples[-1]
    flat = last - settled <= SLACK_BYTES
    print(json.dumps({"mb_after_a_fifth": settled / 1e6, "mb_at_the_end": last / 1e6}))
    sys.exit(0 if flat else 1)


if __name__ == "__main__":
    main()
