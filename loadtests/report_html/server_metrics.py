"""The service's metrics on the time axis of the run."""

from __future__ import annotations

import statistics
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from loadtests.measure.summary import Scrape, Summary
from loadtests.report_html.chart import Series
from loadtests.report_html.html import Child, Markup, markup, tag
from loadtests.report_html.page import section
from loadtests.report_html.time_axis import Axis, axis
from loadtests.report_html.words import amount, milliseconds

METRIC_POINTS = 150  # there are many charts of metrics
LINES = 8  # of one metric
CHARTS = 24  # of metrics

# What a service's metrics are grouped by, from words in their names.
KINDS = (
    ("Queues", ("wait", "queue", "pending")),
    ("Running", ("running", "in_flight", "inflight", "active", "ongoing")),
    ("Cache", ("cache",)),
    ("Memory", ("memory", "_bytes", "rss")),
)
OTHER = "Other metrics"
# Parts of distributions, and what only has labels (prometheus.io/docs/concepts/metric_types).
UNSEEN = ("_bucket", "_created", "_info")

Samples = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Metric:
    """What one chart shows: a line for each process and set of labels."""

    name: str
    unit: str
    lines: Sequence[tuple[str, Samples]]
    words: Callable[[float | None], str] = amount


def server(summary: Summary) -> Markup | None:
    """A chart for each metric, by what it is about."""
    found = metrics(summary.scrapes)
    if not found:
        return None
    shared = axis(summary, METRIC_POINTS)
    left = CHARTS
    shown: list[Child] = []
    hidden: list[str] = []
    for kind in (*(kind for kind, _ in KINDS), OTHER):
        members = [each for each in found if _kind(each.name) == kind]
        drawn = members[:left]
        left -= len(drawn)
        hidden += [each.name for each in members[len(drawn) :]]
        charts = [_chart(each, shared) for each in drawn]
        if charts and kind == OTHER:
            shown.append(tag("details", tag("summary", f"{OTHER} ({len(charts)})"), charts))
        elif charts:
            shown.append(markup(tag("h3", kind), charts))
    return section(
        "server",
        "Server metrics",
        tag(
            "p",
            "Read from the service while the run went on. Counters are shown per second, and "
            "distributions by the mean of what came between two readings.",
        ),
        shown,
        tag(
            "details",
            tag("summary", f"Not drawn, but in summary.json ({len(hidden)})"),
            tag("p", ", ".join(hidden), class_="note"),
        )
        if hidden
        else None,
    )


def metrics(scrapes: Sequence[Scrape]) -> list[Metric]:
    """What there is to draw, by name: of a distribution its mean, of a counter its rate."""
    by_name: dict[str, list[Scrape]] = {}
    for scrape in scrapes:
        if scrape.samples and not scrape.name.endswith(UNSEEN):
            by_name.setdefault(scrape.name, []).append(scrape)
    means = {
        name.removesuffix("_sum")
        for name in by_name
        if name.endswith("_sum") and f"{name.removesuffix('_sum')}_count" in by_name
    }
    found = [_mean(name, by_name[f"{name}_sum"], by_name[f"{name}_count"]) for name in means]
    for name, members in by_name.items():
        if name.removesuffix("_sum").removesuffix("_count") in means:
            continue
        counter = name.endswith(("_total", "_count", "_sum"))
        read = _rate if counter else _values
        lines = [(_label(each), read(each)) for each in members]
        found.append(Metric(name, "per second" if counter else "value", lines))
    return sorted((each for each in found if each.lines), key=lambda each: each.name)


def _mean(name: str, sums: Sequence[Scrape], counts: Sequence[Scrape]) -> Metric:
    """Sum over count, each between two readings. In which nothing came there is no mean."""
    seconds = name.endswith("_seconds")
    totals = {_label(each): sorted(each.samples) for each in sums}
    lines = []
    for each in counts:
        total = totals.get(_label(each), [])
        times = [at for at, _ in total]
        points = []
        # A sample that is as the one before was left out.
        for (before, had), (at, has) in pairwise(sorted(each.samples)):
            first, last = bisect_right(times, before) - 1, bisect_right(times, at) - 1
            if has > had and first >= 0:
                mean = (total[last][1] - total[first][1]) / (has - had)
                points.append((at, 1000 * mean if seconds else mean))
        if points:
            lines.append((_label(each), points))
    return Metric(
        f"{name}, mean", "time" if seconds else "value", lines, milliseconds if seconds else amount
    )


def _values(scrape: Scrape) -> Samples:
    return sorted(scrape.samples)


def _rate(scrape: Scrape) -> Samples:
    """Per second; after a restart a counter begins at 0."""
    return [
        (at, (value - before if value >= before else value) / (at - last))
        for (last, before), (at, value) in pairwise(sorted(scrape.samples))
        if at > last
    ]


def _kind(name: str) -> str:
    return next((kind for kind, words in KINDS if any(word in name for word in words)), OTHER)


def _chart(metric: Metric, shared: Axis) -> Markup:
    ranked = sorted(metric.lines, key=lambda line: -max((v for _, v in line[1]), default=0.0))
    series = [
        Series(label, _placed(samples, shared), number)
        for number, (label, samples) in enumerate(ranked[:LINES])
    ]
    about = ""
    if len(ranked) > LINES:
        about = f"The {LINES} with the greatest values, of {len(ranked)}."
    return shared.chart(metric.name, metric.unit, series, about=about, words=metric.words)


def _label(scrape: Scrape) -> str:
    return " ".join(
        [scrape.target, *(f"{key}={value}" for key, value in sorted(scrape.labels.items()))]
    )


def _placed(samples: Samples, shared: Axis) -> list[float | None]:
    """The last sample of each part; where a part has none, the one before, for so long as samples
    are apart as a rule."""
    times = [at for at, _ in samples]
    apart = [later - at for at, later in pairwise(times)]
    patience = max(shared.step_s, 2.5 * statistics.median(apart)) if apart else shared.step_s
    values: list[float | None] = []
    for start in shared.starts:
        place = bisect_right(times, start + shared.step_s - 1e-9) - 1
        fresh = place >= 0 and start + shared.step_s - times[place] <= patience
        values.append(samples[place][1] if fresh else None)
    return values
