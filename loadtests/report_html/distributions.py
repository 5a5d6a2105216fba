"""How latencies are spread: all of them, and beside each other for models, accounts and so on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from loadtests.measure.summary import Cut, Latency, Summary
from loadtests.report_html.chart import Chart, Series
from loadtests.report_html.cuts import DIMENSIONS, marginal, named
from loadtests.report_html.figure import figure
from loadtests.report_html.histograms import Distribution, distribution
from loadtests.report_html.html import Markup, identifier, markup, tag
from loadtests.report_html.page import section
from loadtests.report_html.scales import Scale, logarithmic
from loadtests.report_html.words import digits, milliseconds, share

PLACES = 72  # of a CDF
MULTIPLES = 12


def distributions(summary: Summary) -> Markup | None:
    """CDFs and percentiles of all counted requests."""
    whole = summary.cuts[0]
    measures = (
        (
            "Time to the first token",
            (("from due", whole.ttft), ("service time", whole.service_ttft)),
        ),
        ("Time per output token", (("all", whole.tpot),)),
        ("Gaps between tokens", (("all", whole.gap),)),
        ("End to end", (("from due", whole.e2e), ("service time", whole.service_e2e))),
        ("The client's own lag", (("from due to taken up", whole.lag),)),
    )
    drawn = [
        _pair(title, [(name, latency) for name, latency in each if latency and latency.count])
        for title, each in measures
    ]
    if not any(drawn):
        return None
    return section(
        "distributions",
        "Distributions",
        tag(
            "p",
            "Of the counted requests. Latency counts from when a request was due; service time "
            "from when it was sent, and it hides what a slow service does to those who wait.",
        ),
        drawn,
    )


def multiples(summary: Summary) -> Markup | None:
    """A small CDF for each model, account and so on, with that of all behind it."""
    whole = summary.cuts[0].ttft or summary.cuts[0].e2e
    if whole is None or not whole.count:
        return None
    measure = "ttft" if summary.cuts[0].ttft else "e2e"
    every = distribution(whole)
    parts = []
    for dimension in DIMENSIONS:
        cuts = sorted(marginal(summary, dimension), key=lambda cut: -cut.requests)
        if len(cuts) < 2:
            continue
        drawn = [_small(cut, dimension, measure, every) for cut in cuts[:MULTIPLES]]
        left = len(cuts) - MULTIPLES
        title = f"By {dimension}" + (f": the {MULTIPLES} with most requests" if left > 0 else "")
        parts.append(markup(tag("h3", title), tag("div", drawn, class_="small")))
    if not parts:
        return None
    name = "first token" if measure == "ttft" else "end"
    return section(
        "multiples",
        "Side by side",
        tag(
            "p",
            f"Share of requests whose {name} came within a time from due (logarithmic); "
            "the grey line is that of all.",
        ),
        parts,
    )


def _pair(title: str, latencies: Sequence[tuple[str, Latency]]) -> Markup | None:
    if not latencies:
        return None
    known = [(name, distribution(latency)) for name, latency in latencies]
    grid = _grid([values for _, values in known])
    tails = _tails(max(values.total for _, values in known))
    cdf = Chart(
        f"{title}: share within a time",
        grid,
        [
            Series(name, [values.share_up_to(x) for x in grid], n)
            for n, (name, values) in enumerate(known)
        ],
        "within",
        "share of requests",
        x_kind="log",
        y_kind="share",
        x_words=milliseconds,
        y_words=share,
        x_range=(grid[0], grid[-1]),
        width=520,
        height=220,
    )
    percentiles = Chart(
        f"{title}: percentiles",
        tails,
        [
            Series(name, [values.percentile(1 - 1 / x) for x in tails], n)
            for n, (name, values) in enumerate(known)
        ],
        "percentile",
        "time",
        x_kind="tail",
        y_kind="log",
        x_words=_percentile,
        y_words=milliseconds,
        x_range=(1.0, tails[-1]),
        width=520,
        height=220,
    )
    return tag("div", figure(cdf), figure(percentiles), class_="pair")


def _grid(of: Sequence[Distribution]) -> list[float]:
    """Times from the least to the greatest value, apart by one factor."""
    low = max(0.001, min(values.values[0] for values in of))
    high = max(values.values[-1] for values in of)
    scale = logarithmic([low, high], 0, 1)
    step = (scale.high / scale.low) ** (1 / PLACES)
    return [scale.low * step**number for number in range(PLACES + 1)]


def _tails(total: int) -> list[float]:
    """1/(1 - p) for percentiles p, eight to a nine, as far as there are values for."""
    nines = min(5.0, max(1.0, math.log10(max(total, 1))))
    exact = [10 ** (number / 8) for number in range(int(nines * 8) + 1)]
    return sorted(
        {
            *exact,
            1.03,
            1.1,
            1.2,
            2.0,
            4.0,
            *(t for t in (10.0, 20.0, 100.0, 1000.0) if t <= exact[-1]),
        }
    )


def _percentile(tail: float) -> str:
    return f"p{digits(100 * (1 - 1 / tail), 5)}"


def _small(cut: Cut, dimension: str, measure: str, every: Distribution) -> Markup:
    latency: Latency | None = getattr(cut, measure)
    width, height = 220.0, 84.0
    across = logarithmic([max(0.001, every.values[0]), every.values[-1]], 4, width - 4)
    down = Scale(0, 1, height - 4, 4)

    def path(values: Distribution, style: str) -> Markup:
        places = [across.low * (across.high / across.low) ** (n / 36) for n in range(37)]
        points = "L".join(f"{across(x):.1f} {down(values.share_up_to(x)):.1f}" for x in places)
        return tag("path", class_=f"series {style}", d=f"M{points}", fill="none")

    said = "nothing measured"
    own = None
    if latency and latency.count:
        own = path(distribution(latency), "s0")
        said = f"p50 {milliseconds(latency.p50)}, p99 {milliseconds(latency.p99)}"
    return tag(
        "figure",
        tag("figcaption", identifier(named(cut, dimension), 80)),
        tag(
            "svg",
            tag("line", class_="axis", x1=4, x2=width - 4, y1=height - 4, y2=height - 4),
            path(every, "s7"),
            own,
            viewBox=f"0 0 {width:g} {height:g}",
            role="img",
            aria_label=f"{named(cut, dimension)}: {said}",
        ),
        tag("span", f"{digits(cut.requests, 9)} requests, {said}", class_="note"),
    )
