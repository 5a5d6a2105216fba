"""How honestly a run was measured: what was delivered, and how late the client was."""

from __future__ import annotations

from loadtests.measure.summary import Latency, Summary
from loadtests.report_html.html import Markup, identifier, tag
from loadtests.report_html.page import section
from loadtests.report_html.tables import Cell, table
from loadtests.report_html.words import clock, digits, milliseconds

# A client that measures a service tells its own share of the latency apart from the service's.
HONEST = (
    "Latency counts from when a request was due, not from when it was sent: a caller that had to "
    "wait for the client or for a connection waited. Service time, from sent, stands beside it."
)


def honesty(summary: Summary) -> Markup:
    """What was sent beside what was configured, and latency beside service time."""
    lag, cut = summary.cuts[0].lag, summary.cuts[0]
    phases = [
        [
            Cell(identifier(phase.name)),
            Cell(f"{clock(phase.start_s)} to {clock(phase.end_s)}", phase.start_s),
            Cell(
                "closed" if phase.closed_loop else "open", kind="bad" if phase.closed_loop else ""
            ),
            Cell("yes" if phase.counted else "no"),
            Cell(
                "–" if phase.configured_rate is None else digits(phase.configured_rate, 4),
                phase.configured_rate,
            ),
            Cell(digits(phase.achieved_rate, 4), phase.achieved_rate),
            Cell(_error(phase.configured_rate, phase.achieved_rate)),
            Cell(digits(phase.due, 9), phase.due),
            Cell(digits(phase.sent, 9), phase.sent),
        ]
        for phase in summary.phases
    ]
    beside = [
        _beside("First token", cut.ttft, cut.service_ttft),
        _beside("End to end", cut.e2e, cut.service_e2e),
        _beside("The client's own lag", lag, None),
    ]
    return section(
        "honesty",
        "Measured honestly?",
        tag("p", HONEST),
        tag(
            "p",
            "The run is valid: the client kept up with the schedule, and what was sent is what "
            "was configured."
            if not summary.invalid
            else "The run is invalid, see the top of the page.",
        ),
        table(
            "Delivered against configured",
            [
                "phase",
                "from, to",
                "loop",
                "counted",
                "requests/s due",
                "requests/s sent",
                "difference",
                "due",
                "sent",
            ],
            phases,
        ),
        table(
            "From due beside service time",
            ["measure", "p50", "p90", "p99", "p99.9", "greatest", "service p50", "service p99"],
            beside,
        ),
    )


def _error(configured: float | None, achieved: float) -> str:
    if not configured:
        return "–"
    error = achieved / configured - 1
    return "0%" if abs(error) < 5e-6 else f"{100 * error:+.2f}%"


def _beside(name: str, latency: Latency | None, service: Latency | None) -> list[Cell | str]:
    def cells(of: Latency | None, percentiles: tuple[str, ...]) -> list[Cell]:
        known = of if of and of.count else None
        values = [getattr(known, each) if known else None for each in percentiles]
        return [Cell(milliseconds(value), value) for value in values]

    return [
        name,
        *cells(latency, ("p50", "p90", "p99", "p999", "max")),
        *cells(service, ("p50", "p99")),
    ]
