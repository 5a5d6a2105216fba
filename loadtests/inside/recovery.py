"""Measures how long a model is away when its only replica is killed, and where the time goes.

    python -m loadtests.inside.recovery --logs .serving/logs [--streams 16]

Kills the model's engine server (`--victim actor`: its Ray worker) on this machine, asks until the
first answer, and takes the steps in between from the logs of `serving up` and from when the new
processes began. `--streams` run on the other models meanwhile. Prints one row a round, in seconds.
Ends with status 1 if a round took longer than the bar, which is another one under load.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from loadtests.inside.ask import Asker
from loadtests.inside.pages import model_ids
from loadtests.loop import run as run_loop
from loadtests.measure.record import Outcome

ASK_EVERY_S = 0.1
GIVE_UP_S = 240.0
TOKENS = 64  # of each stream of the load
# Between two rounds, in seconds: the cluster is at rest again.
SETTLE_S = 8.0
# A model is back within so long, in seconds: nothing else runs, or streams of other models do.
IDLE_BAR_S = 15.0
LOAD_BAR_S = 30.0
PARTS = (
    "noticed",
    "Serve's look, worker",
    "replica",
    "server, light imports",
    "vLLM's imports",
    "load, profile",
    "found, first answer",
)


class Logs:
    """The JSON logs of one service."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def events(self, component: str, event: str, **fields: str) -> list[dict[str, Any]]:
        """Return the lines of one kind with these fields, oldest first; `at` is their time in
        seconds since 1970, `process` the process that wrote them."""
        found = []
        for file in self._folder.glob(f"{component}-*.jsonl"):
            for line in file.read_text().splitlines():
                if f'"{event}"' not in line:
                    continue
                entry = json.loads(line)
                if entry["event"] == event and fields.items() <= entry.items():
                    entry["at"] = datetime.fromisoformat(entry["time"]).timestamp()
                    entry["process"] = int(file.stem.rpartition("-")[2])
                    found.append(entry)
        return sorted(found, key=lambda entry: entry["at"])

    def last(self, component: str, event: str, **fields: str) -> dict[str, Any]:
        """Return the newest of `events`; raises IndexError if there is none."""
        return self.events(component, event, **fields)[-1]


async def first_answer(ask: Asker, model: str) -> int:
    """Ask until a request is answered; return how many were refused before."""
    refused = 0
    deadline = time.time() + GIVE_UP_S
    while time.time() < deadline:
        answered = await ask("create_completion", model, "Hello!", 1, stream=False)
        if answered.record.outcome is Outcome.OK:
            return refused
        refused += 1
        await asyncio.sleep(ASK_EVERY_S)
    raise SystemExit(f"no answer within {GIVE_UP_S:g} s")


def parts(logs: Logs, model: str, killed: float, answered: float) -> list[float]:
    """Return how long each of `PARTS` took, in seconds."""
    replica = logs.last("replica", "engine_server_started", model=model)
    name = replica["replica"]
    noticed = logs.events("router", "replica_lost", model=model)[-1]["at"]
    # Ray may have started the worker ahead.
    worker = max(noticed, psutil.Process(replica["process"]).create_time())
    imports = logs.last("engine", "engine_starting", replica=name)["at"]
    imported = logs.last("engine", "engine_imported", replica=name)["at"]
    ready = logs.last("engine", "engine_ready", replica=name)["at"]
    times = [killed, noticed, worker, replica["at"], imports, imported, ready, answered]
    return [after - before for before, after in itertools.pairwise(times)]


@contextlib.asynccontextmanager
async def load(ask: Asker, models: list[str], streams: int) -> AsyncIterator[None]:
    """Keep `streams` streams running on `models` while the block runs."""

    async def client(number: int) -> None:
        while True:
            model = models[number % len(models)]
            answered = await ask("create_completion", model, "Once upon", TOKENS)
            if answered.record.error is not None:
                await asyncio.sleep(ASK_EVERY_S)

    clients = [asyncio.create_task(client(number)) for number in range(streams)]
    try:
        yield
    finally:
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


async def run(args: argparse.Namespace) -> list[float]:
    """Run every round and print the table; return how long the model was away in each."""
    logs = Logs(args.logs)
    rows = []
    listed = await model_ids(args.url, args.api_key)
    others = args.load_models or [name for name in listed if name != args.model]
    print("  ".join(("   total", *PARTS, "refused")))
    with contextlib.closing(Asker(args.url, args.api_key)) as ask:
        async with load(ask, others, args.streams):
            for _ in range(args.rounds):
                await asyncio.sleep(SETTLE_S)
                started = logs.last("replica", "engine_server_started", model=args.model)
                victim = started["process"] if args.victim == "actor" else started["pid"]
                os.kill(victim, signal.SIGKILL)
                killed = time.time()
                refused = await first_answer(ask, args.model)
                answered = time.time()
                await asyncio.sleep(1.0)  # the last lines are written
                row = [answered - killed, *parts(logs, args.model, killed, answered)]
                rows.append(row)
                _print(row, refused)
    if len(rows) > 1:
        print("medians")
        _print([statistics.median(column) for column in zip(*rows, strict=True)], 0)
    return [total for total, *_ in rows]


def judge(totals: list[float], bar_s: float) -> int:
    """Print whether the worst round is within the bar; return the exit status."""
    worst = max(totals)
    within = worst <= bar_s
    print(f"away for {worst:.1f} s at worst, {'within' if within else 'beyond'} {bar_s:g} s")
    return 0 if within else 1


def _print(row: list[float], refused: int) -> None:
    widths = [8, *map(len, PARTS)]
    shown = (f"{value:{width}.1f}" for value, width in zip(row, widths, strict=True))
    print("  ".join((*shown, f"{refused:7}")), flush=True)


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--api-key", default="sk-local")
    parser.add_argument("--model", default="tiny-mistral-instruct", help="has one replica")
    parser.add_argument("--logs", type=Path, default=Path(".serving/logs"))
    parser.add_argument("--victim", choices=("server", "actor"), default="server")
    parser.add_argument("--streams", type=int, default=0, help="on the other models")
    parser.add_argument("--load-models", nargs="*", help="[default: all others]")
    parser.add_argument("--rounds", type=int, default=3)
    bars = f"[default: {IDLE_BAR_S:g} s, with --streams {LOAD_BAR_S:g}]"
    parser.add_argument("--bar", type=float, help=f"the longest that it may be away {bars}")
    args = parser.parse_args(argv)
    bar_s = args.bar if args.bar is not None else LOAD_BAR_S if args.streams else IDLE_BAR_S
    return judge(run_loop(run(args)), bar_s)


if __name__ == "__main__":
    sys.exit(main())
