"""The client's counts beside the service's."""

from __future__ import annotations

from loadtests.measure.summary import Count, Summary
from loadtests.report_html.html import Child, Markup, identifier, tag
from loadtests.report_html.page import section
from loadtests.report_html.tables import Cell, table
from loadtests.report_html.words import digits


def counts(summary: Summary) -> Markup | None:
    """Every count, those that nothing explains first."""
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
                _verdict(count),
                count.unexplained,
                kind="bad" if count.unexplained else "good",
            ),
            Cell(": ".join(filter(None, (count.source, count.note))), kind="text"),
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


def _verdict(count: Count) -> str:
    if count.unexplained:
        return f"{count.unexplained:,} unexplained"
    return "equal" if count.client == count.server else "explained"
