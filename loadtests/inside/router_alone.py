"""Measures what a router alone costs per event: ours, and vLLM's own, which is written in Rust.

    python -m loadtests.inside.router_alone [--rounds 5]

The load is 64 streams, each with an event every 20 ms on a clock of its own. Only the CPU of the
router's process counts, minus its idle use. The engines are doubles without a model: our router has
the echo engine behind our link, theirs has the load generator's known server behind HTTP. Theirs
needs the environment `.venv-peers`, which `make overhead` makes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from loadtests.inside.ask import KEY, Asker
from loadtests.inside.stacks import cpu_of_tree, free_port, wait_until
from loadtests.known.process import KnownProcess
from loadtests.load.planned import Endpoint
from loadtests.loop import run as run_loop

STREAMS = 64
EVENTS = 200
INTERVAL_S = 0.02
PEERS = Path(".venv-peers")
MODEL = "synthetic"


class Candidate:
    """A router in front of its engine."""

    def __init__(
        self, name: str, endpoint: Endpoint, url: str, process: subprocess.Popen[bytes]
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.url = url
        self.process = psutil.Process(process.pid)

    def cpu(self) -> float:
        """CPU seconds of the router's processes so far."""
        return sum(used for _, used in cpu_of_tree(self.process))


async def event_us(candidate: Candidate, seconds_idle: float = 2.0) -> float:
    """Run the load once; return the router's CPU microseconds per event.

    Raises:
        RuntimeError: a stream failed or lost an event.
    """
    before = candidate.cpu()
    await asyncio.sleep(seconds_idle)
    idle = (candidate.cpu() - before) / seconds_idle
    with contextlib.closing(Asker(candidate.url)) as ask:
        before, started = candidate.cpu(), time.monotonic()
        found = await asyncio.gather(
            *(ask(candidate.endpoint, MODEL, "word", EVENTS) for _ in range(STREAMS))
        )
        used = candidate.cpu() - before - idle * (time.monotonic() - started)
    for answered in found:
        if answered.record.error or answered.text != "word " * EVENTS:
            raise RuntimeError(f"{candidate.name}: {answered.record.error or 'events are missing'}")
    return used / (STREAMS * EVENTS) * 1e6


@contextlib.contextmanager
def ours(
    folder: Path, events: int = EVENTS, interval_s: float = INTERVAL_S, task: str = "generate"
) -> Iterator[Candidate]:
    """Start our router and an echo engine behind the link, which says its word `events` times."""
    spec = {"id": MODEL, "weights": "none", "context": 100_000, "start_timeout_s": 60}
    spec["task"] = task
    spec["engine_args"] = {"interval_s": interval_s, "repeat": events}
    models = folder / "models.json"
    models.write_text(json.dumps({"models": [spec]}))
    read_fd, write_fd = os.pipe()
    config = {"spec": spec, "replica": "echo#1", "token": "benchmark", "ready_fd": write_fd}
    config |= {"engine": "serving.engine.echo:EchoEngine", "log_dir": str(folder), "drain_s": 0.0}
    env = {"SERVING_ENGINE": json.dumps(config), "SERVING_CLUSTER_TOKEN": "benchmark"}
    env |= {"SERVING_API_KEYS": KEY, "SERVING_LOG_DIR": str(folder)}
    with running([sys.executable, "-m", "serving.engine.server"], env, [write_fd]):
        os.close(write_fd)
        with os.fdopen(read_fd) as pipe:
            link = json.loads(pipe.readline())["link_port"]
        port = free_port()
        command = [sys.executable, "-m", "serving.router", "--models", str(models)]
        command += ["--port", str(port), "--replica", "echo#1", MODEL, f"127.0.0.1:{link}"]
        with running(command, env) as router:
            url = f"http://127.0.0.1:{port}"
            wait_until(f"{url}/ready", router, "our router")
            yield Candidate("ours", "create_completion", url, router)


@contextlib.contextmanager
def vllm_router(folder: Path) -> Iterator[Candidate]:
    """Start vLLM's router and the known server behind HTTP, which sends events at equal times."""
    port, metrics_port = free_port(), free_port()
    times = {"first_s": INTERVAL_S, "gap_s": INTERVAL_S, "first_sigma": 0.0, "gap_sigma": 0.0}
    engine = KnownProcess.start(folder / "engine.log", events=EVENTS, **times)
    with contextlib.ExitStack() as after:
        after.callback(engine.kill)
        command = [str(PEERS / "bin" / "vllm-router"), "--host", "127.0.0.1", "--port", str(port)]
        command += ["--worker-urls", engine.url, "--policy", "round_robin"]
        command += ["--prometheus-port", str(metrics_port), "--log-level", "error"]
        with running(command, {}) as router:
            url = f"http://127.0.0.1:{port}"
            wait_until(f"{url}/health", router, "vllm-router")
            yield Candidate("vllm-router", "completions", url, router)


@contextlib.contextmanager
def running(
    command: list[str], env: dict[str, str], pass_fds: list[int] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process without its output until the block ends."""
    process = subprocess.Popen(
        command,
        env=os.environ | env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=pass_fds or [],
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def compare(rounds: int) -> dict[str, list[float]]:
    """Measure the routers in turn; return the CPU per event of every run, by router."""
    with tempfile.TemporaryDirectory(prefix="router-") as folder, contextlib.ExitStack() as stack:
        candidates = [stack.enter_context(ours(Path(folder)))]
        if (PEERS / "bin" / "vllm-router").exists():
            candidates.append(stack.enter_context(vllm_router(Path(folder))))
        runs: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
        for number in range(rounds + 1):
            for candidate in candidates:
                used = run_loop(event_us(candidate))
                if number:  # the first run warms connections and caches
                    runs[candidate.name].append(used)
            print(f"router alone: round {number} of {rounds}", file=sys.stderr)
    return runs


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    for name, values in compare(parser.parse_args().rounds).items():
        low, high = min(values), max(values)
        print(f"{name:12} {statistics.median(values):6.1f} us/event ({low:.1f} to {high:.1f})")


if __name__ == "__main__":
    main()
