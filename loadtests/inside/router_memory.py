"""Checks that a router's memory stays flat over a million requests.

    python -m loadtests.inside.router_memory [--requests 1000000]

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
from contextlib import closing
from pathlib import Path

import psutil

from loadtests.inside.ask import Asker
from loadtests.inside.router_alone import MODEL, ours
from loadtests.loop import run as run_loop

CONNECTIONS = 32
SAMPLES = 50
# So much is the allocator's noise. A leak of five bytes per request would be as much.
SLACK_BYTES = 4 * 1024 * 1024


async def client(ask: Asker, numbers: range) -> None:
    """Send these requests one after the other.

    Raises:
        RuntimeError: a request got another status than it must get.
    """
    for number in numbers:
        kind = number % 20
        unknown, invalid = kind == 1, kind == 2
        answered = await ask(
            "create_completion",
            f"unknown-{number}" if unknown else MODEL,
            f"number {number}",
            8,
            stream=kind == 0,
            headers={"x-request-id": f"request-{number}"},
            extra={"temperature": number} if invalid else {},
        )
        record, status = answered.record, 404 if unknown else 422 if invalid else 200
        if record.status != status or (record.error is not None) != (status != 200):
            raise RuntimeError(f"request {number}: {record.status} {record.error}")


async def run(url: str, router: psutil.Process, requests: int) -> list[int]:
    """Send the requests in parts; return the router's memory in bytes after each part."""
    part = requests // SAMPLES // CONNECTIONS
    samples, started = [], time.monotonic()
    with closing(Asker(url)) as ask:
        for sample in range(SAMPLES):
            first = sample * part * CONNECTIONS
            starts = range(first, first + part * CONNECTIONS, part)
            await asyncio.gather(*(client(ask, range(at, at + part)) for at in starts))
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
        samples = run_loop(run(router.url, router.process, args.requests))
    settled, last = samples[SAMPLES // 5], samples[-1]
    flat = last - settled <= SLACK_BYTES
    print(json.dumps({"mb_after_a_fifth": settled / 1e6, "mb_at_the_end": last / 1e6}))
    sys.exit(0 if flat else 1)


if __name__ == "__main__":
    main()
