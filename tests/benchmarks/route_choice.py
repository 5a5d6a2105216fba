"""What choosing a route costs while 100,000 custom IDs and 1,000 replicas are known.

    python -m tests.benchmarks.route_choice [--ids 100000] [--replicas 1000]

Real routes and real links: the replicas are link servers with echo engines in a second process,
each holding a few adapters. Prints one JSON object: CPU per choice (resolve the ID, pick the
replica) in microseconds, and by how much the process grew, in MB.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import psutil

from serving.accounts.caller import ANYONE
from serving.catalogue.catalogue import Catalogue
from serving.catalogue.spec import EngineSpec
from serving.engine.echo import EchoEngine
from serving.engine.link_server import LinkServer
from serving.observability.logs import open_log
from serving.observability.router_metrics import RouterMetrics
from serving.router.fleet import Fleet
from serving.router.resolve import Resolver
from serving.wire.entry import Entry
from serving.wire.messages import AdapterRef

MODEL = "base"
HELD = 4


def adapter_id(number: int) -> str:
    return f"{MODEL}.team-{number}.240601-120000"


async def replicas(count: int, ids: int, logs: str) -> None:
    """The second process: serves until its stdin closes; prints the ports as one JSON list."""
    log = open_log("replicas", logs)
    rng = random.Random(1)
    ports = []
    for number in range(count):
        engine = EchoEngine(EngineSpec(id=MODEL, weights="none", context=1000))
        for _ in range(HELD):
            held = adapter_id(rng.randrange(ids))
            engine._adapters[held] = AdapterRef(held, "/w")
        server = LinkServer(
            engine,
            replica=f"r{number}",
            model=MODEL,
            token="",
            log=log,
            on_call_end=lambda _: None,
        )
        ports.append(await server.start("127.0.0.1"))
    print(json.dumps(ports), flush=True)
    await asyncio.to_thread(sys.stdin.read)


async def measure(ports: list[int], ids: int, logs: str) -> dict[str, Any]:
    process = psutil.Process()
    gc.collect()
    before = process.memory_info().rss
    base = {"kind": "engine", "id": MODEL, "weights": "w", "context": 1000, "lora": {}}
    adapters = (
        {
            "kind": "adapter",
            "id": adapter_id(n),
            "base": MODEL,
            "weights": f"s3://adapters/team-{n}",
        }
        for n in range(ids)
    )
    resolver = Resolver(Catalogue.model_validate({"models": [base, *adapters]}))
    rng = random.Random(2)
    fleet = Fleet(
        router="benchmark",
        token="",
        metrics=RouterMetrics(),
        log=open_log("router", logs),
        rng=rng,
    )
    fleet.set_models([MODEL])
    fleet.update(
        Entry(f"r{number}", "engine", MODEL, "127.0.0.1", port, "")
        for number, port in enumerate(ports)
    )
    while fleet.ready(MODEL) < len(ports):
        await asyncio.sleep(0.05)
    gc.collect()
    grown = process.memory_info().rss - before
    wanted = [adapter_id(rng.randrange(ids)) for _ in range(20_000)]
    batches = []
    for start in range(0, len(wanted), 1000):
        started = time.process_time()
        for model_id in wanted[start : start + 1000]:
            route = resolver.resolve(model_id, ANYONE)
            assert route.adapter is not None
            fleet.pick(route.engine.id, route.adapter.id)
        batches.append((time.process_time() - started) * 1e3)
        await asyncio.sleep(0)
    await fleet.close()
    return {
        "choice_us": round(statistics.median(batches), 2),
        "choice_us_worst_batch": round(max(batches), 2),
        "memory_mb": round(grown / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ids", type=int, default=100_000)
    parser.add_argument("--replicas", type=int, default=1000)
    parser.add_argument("--serve", metavar="LOGS", help=argparse.SUPPRESS)
    args = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if args.serve:
        asyncio.run(replicas(args.replicas, args.ids, args.serve))
        return
    with tempfile.TemporaryDirectory(prefix="route-choice-") as logs:
        command = [sys.executable, "-m", "tests.benchmarks.route_choice", "--serve", logs]
        command += ["--ids", str(args.ids), "--replicas", str(args.replicas)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as second:
            assert second.stdout is not None
            ports = json.loads(second.stdout.readline())
            print(json.dumps(asyncio.run(measure(ports, args.ids, logs))))
            second.communicate()


if __name__ == "__main__":
    main()
