"""Whether the figures are the server's, or the load generator was the bottleneck."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loadtests.measure.cell import Cell
from loadtests.measure.client import ClientFigures
from loadtests.measure.histogram import micros
from loadtests.measure.summary import PhaseFigures, Summary
from loadtests.scenarios.model import Client

FINE, MISSED, USAGE, INVALID = 0, 1, 2, 3

_BUSY = 0.95  # share of a core, over a few seconds, from which on a process is the bottleneck
_CLOCK_S = 0.1
_REMEDY = (
    "give it more cores, raise `client: {{processes: {more}}}`, or lower the load of each machine"
)


def reasons(
    client: Client,
    everything: Cell,
    phases: Sequence[PhaseFigures],
    clients: Sequence[ClientFigures],
) -> list[str]:
    """Why the figures must not be used, each with what to do. None: they may be.

    `everything` is all counted requests.
    """
    return [
        *_delivery(client, everything, phases),
        *_processes(client, clients),
        *_whole(everything, phases, clients),
    ]


def _delivery(client: Client, everything: Cell, phases: Sequence[PhaseFigures]) -> Iterator[str]:
    remedy = _REMEDY.format(more=client.processes * 2)
    limit = client.max_lag_p99_ms
    if everything.lag is not None:
        p99 = everything.lag.percentiles((990,))[0] / 1000
        if p99 > limit:
            share = everything.lag.above(micros(limit / 1000)) / len(everything.lag)
            yield (
                f"the client sent late: p99 of its lag is {p99:.1f} ms, above {limit:g} ms "
                f"(`client: max_lag_p99_ms`), and {share:.1%} of the requests were later; {remedy}"
            )
    for phase in phases:
        # Of few requests a single one is more than the share.
        missing = phase.due - phase.sent
        if missing > max(1, client.max_rate_error * phase.due):
            yield (
                f"phase {phase.name}: {phase.due} requests were due and {phase.sent} were sent in "
                f"time, {missing / phase.due:.1%} less; at most {client.max_rate_error:.1%} may be "
                f"missing (`client: max_rate_error`); {remedy}"
            )


def _processes(client: Client, clients: Sequence[ClientFigures]) -> Iterator[str]:
    remedy = _REMEDY.format(more=client.processes * 2)
    for one in clients:
        if one.busiest >= _BUSY:
            yield (
                f"process {one.name} of the client used {one.busiest:.0%} of its core in its "
                f"busiest seconds; {remedy}"
            )
        if one.late_p99_ms > client.max_lag_p99_ms:
            yield (
                f"process {one.name} of the client came late to what happened: p99 is "
                f"{one.late_p99_ms:.1f} ms and the worst {one.late_max_ms:.0f} ms, above "
                f"{client.max_lag_p99_ms:g} ms, so times of tokens are off by as much; {remedy}"
            )
        if one.started_late_s * 1000 > client.max_lag_p99_ms:
            yield (
                f"process {one.name} of the client began {one.started_late_s:.2f} s after the "
                "agreed start; agree on a later one, so that all are ready"
            )
        if abs(one.clock_step_s) > _CLOCK_S:
            yield (
                f"the clock of process {one.name}'s machine was set by {one.clock_step_s:+.2f} s "
                "during the run, so it does not fit the others' or the server's logs; run again, "
                "with a clock that is only slewed"
            )


def _whole(
    everything: Cell, phases: Sequence[PhaseFigures], clients: Sequence[ClientFigures]
) -> Iterator[str]:
    if any(one.interrupted for one in clients):
        yield (
            "the run was interrupted: the figures are of a part of it; run it to its end, or "
            "shorten its phases"
        )
    elif not everything.requests and any(phase.counted for phase in phases):
        yield "no request was counted; check the phases' rates and `counted`"


def status(summary: Summary) -> int:
    """The exit status of a run: 3 invalid, 1 a goal missed, 0 fine. (2 is wrong usage.)"""
    if summary.invalid:
        return INVALID
    return FINE if all(verdict.met for verdict in summary.verdicts) else MISSED
