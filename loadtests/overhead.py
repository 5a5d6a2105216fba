"""What our stack adds to bare vLLM: CPU, throughput and latency, measured side by side.

    python -m loadtests.overhead [--rounds 5] [--seconds 8] [--json FILE]

Starts our stack and vLLM's own server with the same model and engine arguments, runs the same
streams against each in turn (A B A B ...), and prints medians and ratios. Frontend CPU is that of
every process but the engine core and its worker, less what they use idle over the same time, over
tokens streamed. Ratios within one run are what counts; absolute figures vary with the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from loadtests.client import CREATE_COMPLETION, OPENAI, Result, request_body, stream_completion
from loadtests.stacks import Stack, bare, ours

PROMPT = "Once upon a time"
TOKENS = 64
MODELS = Path("deployments/models/local.yaml")


@dataclass(frozen=True)
class Case:
    """One kind of load: how many streams at once, on which endpoint, with which model ID."""

    name: str
    streams: int
    path: str
    model: str


@dataclass(frozen=True)
class Figures:
    """What one run of a case measured."""

    frontend_us: float
    engine_us: float
    tokens_per_s: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    gap_p99_ms: float


async def measure(stack: Stack, case: Case, seconds: float, idle: float) -> Figures:
    """Run `case.streams` clients for `seconds`, each stream after the other.

    `idle` is the stack's frontend CPU per second without load.

    Raises:
        RuntimeError: a stream failed or did not deliver exactly its tokens.
    """
    body = request_body(case.path, case.model, PROMPT, TOKENS)
    results: list[Result] = []

    async def client(session: aiohttp.ClientSession, deadline: float) -> None:
        while time.monotonic() < deadline:
            result = await stream_completion(session, stack.url, "sk-local", case.path, body)
            if result.error or result.completion_tokens != TOKENS:
                raise RuntimeError(
                    f"{stack.name}: {result.error or f'{result.completion_tokens} tokens'}"
                )
            results.append(result)

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        before, started = stack.cpu(), time.monotonic()
        deadline = started + seconds
        await asyncio.gather(*(client(session, deadline) for _ in range(case.streams)))
        elapsed = time.monotonic() - started
        used = stack.cpu() - before
    tokens = len(results) * TOKENS
    first = sorted(result.first_byte_s or 0.0 for result in results)
    gaps = sorted(gap for result in results for gap in result.gaps_s)
    return Figures(
        frontend_us=(used.frontend - idle * elapsed) / tokens * 1e6,
        engine_us=used.engine / tokens * 1e6,
        tokens_per_s=tokens / elapsed,
        ttft_p50_ms=statistics.median(first) * 1e3,
        ttft_p99_ms=_quantile(first, 0.99) * 1e3,
        gap_p99_ms=_quantile(gaps, 0.99) * 1e3,
    )


async def idle_rate(stack: Stack, seconds: float) -> float:
    """Frontend CPU seconds per second without load."""
    before = stack.cpu()
    await asyncio.sleep(seconds)
    return (stack.cpu() - before).frontend / seconds


async def compare(
    stacks: dict[str, Stack], model: str, adapter: str | None, rounds: int, seconds: float
) -> dict[str, Any]:
    """Every case on every stack it is for, in turn; figures by case and stack."""
    plan: list[tuple[Case, str]] = []
    for streams in (32, 128, 1):
        plan.append((Case(f"{streams} streams, bare /v1", streams, OPENAI, model), "bare"))
        plan.append((Case(f"{streams} streams, /v4", streams, CREATE_COMPLETION, model), "ours"))
        plan.append((Case(f"{streams} streams, /v1", streams, OPENAI, model), "ours"))
    if adapter:
        plan.append((Case("32 streams, /v4, adapter", 32, CREATE_COMPLETION, adapter), "ours"))
    idle = {name: await idle_rate(stack, 5.0) for name, stack in stacks.items()}
    runs: dict[str, list[Figures]] = {}
    for case, name in plan:  # not counted: caches, connections, first adapters
        await measure(stacks[name], case, 1.0, idle[name])
    for number in range(rounds):
        for case, name in plan:
            figures = await measure(stacks[name], case, seconds, idle[name])
            runs.setdefault(case.name, []).append(figures)
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return {
        "idle_cpu": idle,
        "runs": {name: [vars(f) for f in all_] for name, all_ in runs.items()},
    }


# What is compared: figure, our case, the other case, whether as a difference, and the bar.
_V4, _V1, _BARE = "{} streams, /v4", "{} streams, /v1", "{} streams, bare /v1"
_ADAPTER = "32 streams, /v4, adapter"
_MEASURES = (
    ("frontend CPU/token", "frontend_us", _V4.format(32), _BARE.format(32), False, "<= 1.0"),
    ("frontend CPU/token", "frontend_us", _V1.format(32), _BARE.format(32), False, "<= 1.25"),
    ("frontend CPU/token", "frontend_us", _ADAPTER, _V4.format(32), False, "<= 1.05"),
    ("throughput", "tokens_per_s", _V4.format(32), _BARE.format(32), False, ">= 0.95"),
    ("throughput", "tokens_per_s", _V4.format(128), _BARE.format(128), False, ">= 0.95"),
    ("TTFT p50, ms", "ttft_p50_ms", _V4.format(1), _BARE.format(1), True, "<= 3"),
    ("TTFT p99", "ttft_p99_ms", _V4.format(32), _BARE.format(32), False, "<= 1.1"),
    ("gap between events p99", "gap_p99_ms", _V4.format(32), _BARE.format(32), False, "<= 1.1"),
)


def table(report: dict[str, Any]) -> list[tuple[str, float, str]]:
    """Each measure's median over the rounds, and the bar to meet."""
    runs = report["runs"]
    rows = []
    for name, figure, one, other, as_difference, bar in _MEASURES:
        if one not in runs or other not in runs:
            continue
        values = [
            a[figure] - b[figure] if as_difference else a[figure] / b[figure]
            for a, b in zip(runs[one], runs[other], strict=True)
        ]
        sign = "minus" if as_difference else "over"
        rows.append((f"{name}: {one} {sign} {other}", float(statistics.median(values)), bar))
    return rows


def show(report: dict[str, Any], write: Callable[[str], Any]) -> None:
    """Print absolute medians with their spread, then the table."""
    write(f"{'case':34} {'frontend us':>18} {'engine us':>10} {'tokens/s':>9} {'TTFT p50':>9}\n")
    for name, all_ in report["runs"].items():
        front = sorted(run["frontend_us"] for run in all_)
        spread = f"{statistics.median(front):.0f} ({front[0]:.0f}-{front[-1]:.0f})"
        rest = [
            statistics.median(run[key] for run in all_)
            for key in ("engine_us", "tokens_per_s", "ttft_p50_ms")
        ]
        write(f"{name:34} {spread:>18} {rest[0]:10.0f} {rest[1]:9.0f} {rest[2]:9.1f}\n")
    write(f"\nidle frontend CPU, s/s: {report['idle_cpu']}\n\n")
    for measure_name, value, bar in table(report):
        met = value <= float(bar[3:]) if bar.startswith("<=") else value >= float(bar[3:])
        write(f"{measure_name:74} {value:7.2f}   {bar:8} {'met' if met else 'NOT MET'}\n")


def _quantile(ordered: list[float], q: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * q))] if ordered else 0.0


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--model", default="tiny-llama")
    parser.add_argument("--adapter", default="tiny-llama.pirate.240601-120000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each run")
    parser.add_argument("--json", type=Path, help="also write everything there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        stacks: dict[str, Stack] = {}
        try:
            for make in (bare, ours):  # one after the other: two starts at once take longer
                stack = make(args.models.resolve(), Path(folder))
                stacks[stack.name] = stack
                print(f"starting {stack.name}", file=sys.stderr)
                stack.wait_until_ready()
            report = asyncio.run(
                compare(stacks, args.model, args.adapter or None, args.rounds, args.seconds)
            )
        finally:
            for stack in stacks.values():
                stack.stop()
    show(report, sys.stdout.write)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
