"""The report of a run."""

from __future__ import annotations

from loadtests.measure.summary import Count, Cut, Latency, Summary
from loadtests.report_html.cuts import errors, tables
from loadtests.report_html.distributions import distributions, multiples
from loadtests.report_html.html import Child, Markup, identifier, markup, tag
from loadtests.report_html.load import against_load
from loadtests.report_html.page import page, section
from loadtests.report_html.tables import Cell, table
from loadtests.report_html.timeline import server, timeline
from loadtests.report_html.words import amount, clock, digits, milliseconds, share

# A client that measures a service tells its own share of the latency apart from the service's.
HONEST = (
    "Latency counts from when a request was due, not from when it was sent: a caller that had to "
    "wait for the client or for a connection waited. Service time, from sent, stands beside it."
)


def render(summary: Summary) -> str:
    """One HTML file, whole in itself: it asks no network, and needs no script to be read."""
    return page(
        f"{summary.scenario}: load test",
        _header(summary),
        [
            _banner(summary),
            _tiles(summary),
            _goals(summary),
            timeline(summary),
            against_load(summary),
            distributions(summary),
            tables(summary),
            multiples(summary),
            errors(summary),
            server(summary),
            _client(summary),
            _counts(summary),
            _scenario(summary),
        ],
    )


def _header(summary: Summary) -> Markup:
    missed = sum(not verdict.met for verdict in summary.verdicts)
    chips: list[Child] = [
        _chip("invalid: do not use", "bad") if summary.invalid else _chip("valid", "good")
    ]
    if summary.verdicts:
        count = len(summary.verdicts)
        chips.append(
            _chip(f"{missed} of {count} goals missed", "bad")
            if missed
            else _chip("goal met" if count == 1 else f"all {count} goals met", "good")
        )
    if any(phase.closed_loop for phase in summary.phases):
        chips.append(_chip("closed loop", "warn"))
    chips.append(_chip("from due", "plain"))
    return markup(
        tag("h1", identifier(summary.scenario)),
        tag("p", summary.about) if summary.about else None,
        tag(
            "p",
            f"{summary.url} · {summary.started_at} · {clock(summary.seconds)} · "
            f"seed {summary.seed}",
        ),
        tag("div", chips, class_="chips"),
    )


def _chip(text: str, kind: str) -> Markup:
    return tag("span", text, class_=f"chip {kind}")


def _banner(summary: Summary) -> Markup | None:
    closed = [phase.name for phase in summary.phases if phase.closed_loop]
    invalid = summary.invalid and tag(
        "div",
        tag("h2", "This run is invalid: its figures must not be used"),
        tag("ul", [tag("li", reason) for reason in summary.invalid]),
        class_="banner bad",
        role="alert",
    )
    loop = closed and tag(
        "div",
        tag("h2", "Closed loop"),
        tag(
            "p",
            "In ",
            ", ".join(closed),
            ", the next request was sent when one had ended. A slow "
            "service was asked less often, so its latencies look better than callers would see.",
        ),
        class_="banner warn",
    )
    missing = summary.notes and tag(
        "div",
        tag("h2", "Missing beside these figures"),
        tag("ul", [tag("li", note) for note in summary.notes]),
        class_="banner warn",
    )
    found = [each or None for each in (invalid, loop, missing)]
    return markup(*found) if any(found) else None


def _tiles(summary: Summary) -> Markup:
    cut = summary.cuts[0]
    bad = cut.requests - cut.outcomes.get("ok", 0) - cut.outcomes.get("cancelled", 0)
    tiles = [
        ("Requests", digits(cut.requests, 9), f"{digits(cut.requests_per_s)} per s"),
        _latency_tile("First token p50", cut.ttft, "p50", cut.service_ttft),
        _latency_tile("First token p99", cut.ttft, "p99", cut.service_ttft),
        _latency_tile("Per token p50", cut.tpot, "p50", None),
        _latency_tile("End to end p99", cut.e2e, "p99", cut.service_e2e),
        (
            "Tokens/s",
            amount(cut.tokens_per_s),
            f"{digits(cut.completion_tokens, 12)} tokens",
        ),
        ("Goodput/s", digits(cut.goodput_per_s), f"{share(_part(cut.good, cut))} good"),
        ("Not ok", share(_part(bad, cut)), f"{digits(bad, 9)} requests"),
    ]
    if cut.checked:
        tiles.append(
            ("Wrong answers", digits(cut.wrong, 9), f"of {digits(cut.checked, 9)} checked")
        )
    return tag(
        "dl",
        [
            tag(
                "div",
                tag("dt", name),
                tag("dd", value),
                tag("dd", note, class_="note"),
                class_="tile",
            )
            for name, value, note in tiles
        ],
        class_="tiles",
    )


def _latency_tile(
    name: str, latency: Latency | None, percentile: str, service: Latency | None
) -> tuple[str, str, str]:
    def value(of: Latency | None) -> str:
        return milliseconds(getattr(of, percentile)) if of and of.count else "–"

    return (name, value(latency), f"service {value(service)}" if service else "\u00a0")


def _part(count: int, cut: Cut) -> float:
    return count / cut.requests if cut.requests else 0.0


def _goals(summary: Summary) -> Markup | None:
    if not summary.verdicts:
        return None
    rows = [
        [
            Cell(identifier(verdict.goal, 300)),
            Cell(digits(verdict.value), verdict.value),
            Cell("met" if verdict.met else "MISSED", kind="good" if verdict.met else "bad"),
        ]
        for verdict in summary.verdicts
    ]
    return section(
        "goals", "Goals", table("Goals of the scenario", ["goal", "value", "verdict"], rows)
    )


def _client(summary: Summary) -> Markup:
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


def _counts(summary: Summary) -> Markup | None:
    if not summary.counts:
        return None
    rows = [
        [
            Cell(count.what),
            Cell(_name(count)),
            Cell(digits(count.client, 15), count.client),
            Cell(digits(count.server, 15), count.server),
            Cell(f"{count.server - count.client:+,}", count.server - count.client),
            Cell(digits(count.explained, 15), count.explained),
            Cell(
                "equal" if not count.unexplained else f"{count.unexplained:,} unexplained",
                count.unexplained,
                kind="bad" if count.unexplained else "good",
            ),
            Cell(" ".join(filter(None, (count.source, count.note))), kind="text"),
        ]
        for count in sorted(summary.counts, key=lambda count: -count.unexplained)
    ]
    open_ones = sum(bool(count.unexplained) for count in summary.counts)
    return section(
        "counts",
        "Reconciliation",
        tag(
            "p",
            "All agree, or the difference is explained."
            if not open_ones
            else f"{open_ones} of {len(rows)} counts have a difference that nothing explains.",
        ),
        table(
            "Reconciliation",
            [
                "count",
                "model or account",
                "client",
                "service",
                "difference",
                "explained",
                "verdict",
                "source and note",
            ],
            rows,
            words=2,
        ),
    )


def _name(count: Count) -> Child:
    name = count.model if count.account is None else count.account
    return "all" if name is None else identifier(name)


def _scenario(summary: Summary) -> Markup:
    facts = {
        "scenario": summary.scenario,
        "seed": str(summary.seed),
        "service": summary.url,
        "started": summary.started_at,
        "processes of the client": str(summary.processes),
        **summary.client,
    }
    return section(
        "scenario",
        "Scenario and versions",
        tag(
            "dl",
            [(tag("dt", name), tag("dd", value)) for name, value in facts.items()],
            class_="facts",
        ),
        tag("details", tag("summary", "The scenario as it ran"), tag("pre", summary.source))
        if summary.source
        else None,
    )
