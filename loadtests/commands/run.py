"""`loadtest run`: send a scenario, and say what came of it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import click

from loadtests.commands.options import check_url, out_option, reads_scenario, sends
from loadtests.commands.results import EXIT_FAILED, finish
from loadtests.loop import run as run_loop
from loadtests.measure.summary import Summary
from loadtests.output.live import Live
from loadtests.run.conduct import conduct
from loadtests.run.processes import ProcessFailed
from loadtests.run.rendezvous import Follower, Leader
from loadtests.run.shard import Shard
from loadtests.run.state import CannotMerge, checksum
from loadtests.run.together import Alone, AtTime, NoMeeting, Together
from loadtests.scenarios.model import Scenario
from loadtests.scenarios.write import to_yaml


def check_shard(ctx: click.Context, param: click.Parameter, value: str | None) -> Shard:
    if value is None:
        return Shard()
    try:
        return Shard.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def check_address(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[str, int] | None:
    if value is None:
        return None
    host, _, port = value.rpartition(":")
    if not (port.isdecimal() and int(port) < 2**16 and host):
        raise click.BadParameter(f"{value!r} is no HOST:PORT")
    return host.strip("[]"), int(port)


def check_time(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no time, as 2026-01-31T12:00:00Z") from error
    return found.timestamp()


@click.command(
    epilog="""\b
Examples:
  loadtest run smoke --url http://127.0.0.1:8000 --key sk-local
  loadtest run steady --model llama-3-8b-instruct --rate-scale 5
  loadtest run ./mine.yaml --key-env MY_KEY --set traffic.chat.output=128
  loadtest run soak --seconds-scale 16 --processes 4 --out night
  loadtest run smoke --metrics-targets http://127.0.0.1:8000/metrics/targets
  loadtest run smoke --usage http://127.0.0.1:8000/v4/usage --usage-key-env ADMIN_KEY

\b
On several machines (or Jobs), which start together:
  loadtest run steady --shard 0/3 --listen 0.0.0.0:7000    on the first
  loadtest run steady --shard 1/3 --join first:7000        and so on
The first has the exact figures of all in the end. Where they cannot reach each
other, --start-at has them begin by their clocks, and `loadtest merge` does it.

\b
Writes into --out: summary.json, report.html, records.jsonl (one line for each
request), scenario.yaml (as it ran).

\b
Exit status:
  0  every goal was met
  1  a goal was missed
  2  a mistake in the arguments or the scenario; nothing was sent
  3  invalid: this program could not keep up, and the figures must not be used
  4  it could not run, or was ended before its time
"""
)
@reads_scenario
@sends
@click.option(
    "--metrics",
    multiple=True,
    metavar="URL",
    help="Prometheus page to read beside the run; counts are compared with it.",
)
@click.option(
    "--metrics-targets",
    metavar="URL",
    help="Page that lists such pages, in Prometheus' http_sd form.",
)
@click.option(
    "--usage",
    callback=check_url,
    metavar="URL",
    help="The service's ledger, as http://127.0.0.1:8000/v4/usage; compared to the token.",
)
@click.option(
    "--usage-key-env",
    metavar="NAME",
    help="Variable with a key that may read it.  [default: that of the load]",
)
@out_option("loadtest-results/SCENARIO-TIME")
@click.option(
    "--shard", callback=check_shard, metavar="N/M", help="Send this part of M, from 0/M on."
)
@click.option(
    "--listen", callback=check_address, metavar="HOST:PORT", help="Lead the others (shard 0)."
)
@click.option("--join", "leader", callback=check_address, metavar="HOST:PORT", help="Follow it.")
@click.option(
    "--start-at",
    callback=check_time,
    metavar="TIME",
    help="Start then, by the clock of shard 0 or else of each, as 2026-01-31T12:00:00Z.",
)
def run(
    scenario: Scenario,
    keys: dict[str, str],
    out: Path | None,
    shard: Shard,
    listen: tuple[str, int] | None,
    leader: tuple[str, int] | None,
    start_at: float | None,
) -> None:
    """Send SCENARIO to a service: a file, or the name of one that comes with the program.

    Latencies count from the moment a request was due. Ctrl-C ends a run and keeps what it has.
    """
    folder = out or Path("loadtest-results") / f"{scenario.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if leader is not None and (listen is not None or start_at is not None):
        raise click.UsageError("who joins a leader starts when it says; leave out the others")
    if shard.count > 1 and (listen, leader, start_at) == (None, None, None):
        raise click.UsageError("shards start together; give --listen, --join or --start-at")
    if (listen is not None) != (shard.number == 0) and (listen or leader):
        raise click.UsageError("shard 0 listens and the others join it")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scenario.yaml").write_text(to_yaml(scenario), encoding="utf-8")

    async def conducted() -> Summary | None:
        with Live(scenario) as live:
            async with others(scenario, shard, listen, leader, start_at) as together:
                if shard.count > 1:
                    live.note("waiting for the start of all shards")
                return await conduct(scenario, keys, live, folder, shard=shard, together=together)

    try:
        summary = run_loop(conducted())
    except (ProcessFailed, NoMeeting, CannotMerge, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_FAILED)
    if summary is None:
        of_all = "shard 0 has all" if leader else "put all together: loadtest merge"
        click.echo(f"{folder}: the part of shard {shard.number}; {of_all}")
        return
    sys.exit(finish(summary, folder))


@contextlib.asynccontextmanager
async def others(
    scenario: Scenario,
    shard: Shard,
    listen: tuple[str, int] | None,
    leader: tuple[str, int] | None,
    at: float | None,
) -> AsyncIterator[Together]:
    """The other shards, in the way that was asked for."""
    if listen is not None:
        leading = Leader(shard, checksum(scenario), at)
        await leading.listen(*listen)
        try:
            yield leading
        finally:
            await leading.close()
    elif leader is not None:
        following = Follower(shard, *leader, checksum(scenario))
        try:
            yield following
        finally:
            await following.close()
    else:
        yield Alone() if at is None else AtTime(at)
