"""The report of a run."""

from __future__ import annotations

from loadtests.measure.summary import Summary
from loadtests.report_html.counts import counts
from loadtests.report_html.cuts import errors, tables
from loadtests.report_html.distributions import distributions, multiples
from loadtests.report_html.honesty import honesty
from loadtests.report_html.html import Child, Markup, identifier, markup, tag
from loadtests.report_html.load import against_load
from loadtests.report_html.page import page, section
from loadtests.report_html.server_metrics import server
from loadtests.report_html.tables import Cell, table
from loadtests.report_html.tiles import tiles
from loadtests.report_html.timeline import timeline
from loadtests.report_html.words import clock, digits


def render(summary: Summary) -> str:
    """One HTML file, whole in itself: it asks no network, and needs no script to be read."""
    return page(
        f"{summary.scenario}: load test",
        _header(summary),
        [
            _banner(summary),
            tiles(summary),
            _goals(summary),
            timeline(summary),
            against_load(summary),
            distributions(summary),
            tables(summary),
            multiples(summary),
            errors(summary),
            server(summary),
            honesty(summary),
            counts(summary),
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
