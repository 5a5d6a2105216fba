"""Checks that what the load generator reports is true, at a given load.

    python -m loadtests.known.accuracy [--events-per-s 20000] [--streams 2000] [--seconds 15]

One process sends to the known server on this machine; every percentile is compared with what the
server wrote down. It needs two cores that have nothing else to do. The exit status is 1 if a figure
is off by more than 2 % and 1 ms, and 3 if the client says of itself that it was too slow.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

from loadtests.clock import Clock
from loadtests.known.log import Served
from loadtests.known.process import KnownProcess
from loadtests.known.truth import Check, Seen, arrivals, checks, ranked
from loadtests.load.plan import plans
from loadtests.loop import run, tune_collector
from loadtests.measure.aggregate import Aggregate
from loadtests.measure.record import Record
from loadtests.measure.summarise import summarise
from loadtests.measure.summary import Summary
from loadtests.run.worker import Driven, drive
from loadtests.scenarios.arrivals import Phase, Poisson
from loadtests.scenarios.distributions import Fixed
from loadtests.scenarios.model import Client, Scenario, Target
from loadtests.scenarios.traffic import Prompt, Traffic

EVENTS = 100  # of each stream
FIRST_S = 0.2
# The mean of the server's log-normal gaps, of their median.
MEAN_OF_MEDIAN = 1.133


@dataclass(frozen=True, slots=True)
class Measured:
    """A run and the truth about it."""

    summary: Summary
    driven: Driven
    seen: list[Seen]
    served: list[Served]
    start: float
    most: int  # streams at once

    def checks(self) -> list[Check]:
        """Compare."""
        return checks(self.summary.cuts[0], self.seen, self.served, self.start)


def scenario(url: str, rate: float, seconds: float, events: int = EVENTS) -> Scenario:
    """Return a scenario of streams alone."""
    return Scenario(
        name="accuracy",
        target=Target(url=url, timeout_s=120),
        phases=(
            Phase(name="steady", seconds=seconds, arrivals=Poisson(kind="poisson", rate=rate)),
        ),
        traffic=(
            Traffic(
                name="streams",
                models={"known": 1},
                prompt=Prompt(tokens=Fixed(value=64)),
                output=Fixed(value=events),
            ),
        ),
        client=Client(max_lag_p99_ms=5),
    )


def measure(of: Scenario, server: KnownProcess) -> Measured:
    """Run a scenario in this process, and stop the server."""
    aggregate = Aggregate.of(of)
    seen: list[Seen] = []
    spans: list[tuple[float, int]] = []

    def sink(record: Record) -> None:
        aggregate.add(record)
        seen.append(Seen(record.request_id, record.due_s, record.outcome))
        spans.append((record.begun_s, 1))
        spans.append((record.end_s, -1))

    clock = Clock(float("inf"))

    async def send() -> Driven:
        shares = plans(of, {})
        tune_collector()
        clock.start = time.monotonic() + 0.5
        return await drive(shares, of.target, clock, sink)

    driven = run(send())
    seconds = clock.now()
    served = server.stop()
    aggregate.clients.append(driven.figures)
    summary = summarise(of, aggregate, started_at=time.time() - seconds, seconds=seconds)
    most = now = 0
    for _, change in sorted(spans):
        now += change
        most = max(most, now)
    return Measured(summary, driven, seen, served, clock.start, most)


def report(measured: Measured, fails: list[Check]) -> None:
    """Print a table."""
    figures = measured.driven.figures
    counts = measured.driven.counts
    arrived = arrivals(measured.seen, measured.served, measured.start)
    busy = max(each.at_s for each in measured.summary.timeline if each.sent) + 1
    print(f"{counts.ended} streams, {counts.events} events, up to {measured.most} streams at once")
    steady = [event - measured.start for each in measured.served for event in each.events]
    middle = [event for event in steady if busy / 2 <= event < busy]
    print(f"{len(middle) / (busy / 2):.0f} events/s in the second half of the sending")
    print(
        f"client: {figures.cpu_s / counts.events * 1e6:.1f} us of CPU for an event, "
        f"{figures.busiest:.0%} of a core in its busiest seconds, "
        f"late by {figures.late_p99_ms:.2f} ms (p99), {figures.late_max_ms:.1f} ms (most)"
    )
    ranks = ", ".join(
        f"{name} {ranked(arrived, p):.2f}" for name, p in (("p50", 500), ("p99", 990))
    )
    print(f"arrived after due, ms: {ranks}, most {arrived[-1]:.2f}")
    print(f"{'':6}{'':6}{'measured':>12}{'true':>12}{'off':>9}   ms")
    for check in measured.checks():
        bad = "  <-- off" if check in fails else ""
        print(
            f"{check.measure:6}{check.figure:6}{check.measured:12.3f}{check.true:12.3f}"
            f"{check.off:+9.3f}{bad}"
        )


@click.command(help=__doc__)
@click.option("--events-per-s", default=20000.0, show_default=True)
@click.option("--streams", default=2000, show_default=True, help="at once, on average")
@click.option("--seconds", default=15.0, show_default=True, help="of sending")
def main(events_per_s: float, streams: int, seconds: float) -> None:
    """Command line."""
    rate = events_per_s / EVENTS
    gap = (streams / rate - FIRST_S) / EVENTS / MEAN_OF_MEDIAN
    if gap <= 0:
        raise click.UsageError("so many events need more streams")
    # The streams of the first seconds are to be there when the rate is reached.
    seconds += streams / rate
    with tempfile.TemporaryDirectory() as folder:
        server = KnownProcess.start(Path(folder) / "served", first_s=FIRST_S, gap_s=gap)
        try:
            measured = measure(scenario(server.url, rate, seconds), server)
        finally:
            server.kill()
    fails = [check for check in measured.checks() if not check.holds()]
    report(measured, fails)
    for reason in measured.summary.invalid:
        print(f"invalid: {reason}")
    if measured.summary.invalid:
        sys.exit(3)
    sys.exit(1 if fails else 0)


if __name__ == "__main__":
    main()
