"""Latency against load, with the knee."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.measure.knee import Measure, knee_of, latency_of, measured, varied
from loadtests.measure.summary import Load, Summary
from loadtests.report_html.chart import Chart, Rule, Series
from loadtests.report_html.figure import figure
from loadtests.report_html.html import Markup, tag
from loadtests.report_html.page import section
from loadtests.report_html.words import digits, milliseconds


def against_load(summary: Summary) -> Markup | None:
    """What each load came to; None unless the run had several."""
    loads = sorted(summary.loads, key=lambda load: load.due_rate)
    if not varied(loads):
        return None
    measure = measured(loads)
    name = "Time to the first token" if measure == "ttft" else "End to end"
    found = knee_of(loads, measure)
    rates = [load.due_rate for load in loads]
    rules = [] if found is None else [Rule(found, f"knee {digits(found)}/s")]
    said = (
        "No knee: p99 latency grew more slowly than the load up to the highest one."
        if found is None
        else f"The knee is at {digits(found)} requests/s: beyond it p99 latency grows faster "
        "than the load does (load over latency is greatest there)."
    )
    latencies = Chart(
        f"{name} against load, from due",
        rates,
        [
            _percentile(loads, measure, "p50", 0),
            _percentile(loads, measure, "p90", 2),
            _percentile(loads, measure, "p99", 1),
        ],
        "requests/s that were due",
        "time",
        about=said,
        y_kind="log",
        y_words=milliseconds,
        rules=rules,
        height=280,
    )
    delivered = Chart(
        "Requests that ended, against load",
        rates,
        [
            Series("due", rates, 7),
            Series("ended", [load.ended_rate for load in loads], 0, points=True),
        ],
        "requests/s that were due",
        "requests/s",
        rules=rules,
        height=220,
    )
    return section(
        "load",
        "Latency against load",
        tag("p", "Each point is a step, or a part of a ramp. Requests count where they were due."),
        figure(latencies),
        figure(delivered),
    )


def _percentile(loads: Sequence[Load], measure: Measure, percentile: str, style: int) -> Series:
    values = [
        getattr(latency, percentile) if (latency := latency_of(load, measure)) else None
        for load in loads
    ]
    return Series(percentile, values, style, points=True)
