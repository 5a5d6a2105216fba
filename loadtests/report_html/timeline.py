"""What happened when: the client's side of the run, and the service's metrics on the same axis."""

from __future__ import annotations

import statistics
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from loadtests.measure.summary import Scrape, Second, Summary
from loadtests.report_html.chart import Band, Chart, Rule, Series
from loadtests.report_html.figure import figure
from loadtests.report_html.html import Child, Markup, identifier, markup, tag
from loadtests.report_html.page import section
from loadtests.report_html.scales import clock_step
from loadtests.report_html.tables import Cell, table
from loadtests.report_html.words import amount, clock, digits, milliseconds

POINTS = 360  # more than these are not told apart on a page, and each is a row of a table
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


@dataclass(frozen=True)
class Axis:
    """The time axis that all charts share: the run in equal parts."""

    end_s: float
    step_s: int
    bands: Sequence[Band]
    rules: Sequence[Rule]

    @property
    def starts(self) -> list[float]:
        """Where each part begins."""
        return [float(at) for at in range(0, max(1, int(-(-self.end_s // 1))), self.step_s)]

    def chart(
        self,
        title: str,
        unit: str,
        series: Sequence[Series],
        about: str = "",
        words: Callable[[float | None], str] = digits,
        named: bool = False,
        height: float = 150.0,
        log: bool = False,
    ) -> Markup:
        """A chart on this axis."""
        return figure(
            Chart(
                title,
                self.starts,
                series,
                "at",
                unit,
                about=about,
                x_kind="time",
                y_kind="log" if log else "linear",
                y_words=words,
                x_range=(0.0, max(self.end_s, 1.0)),
                bands=self.bands,
                rules=self.rules,
                named=named,
                height=height,
            )
        )


def axis(summary: Summary, points: int = POINTS) -> Axis:
    """The axis of a run: a part has a second, or more where they were too many to be seen."""
    end = max(
        [summary.seconds, *(s.at_s + s.seconds for s in summary.timeline)]
        + [phase.end_s for phase in summary.phases]
    )
    step = max(1, clock_step(end, points), *(second.seconds for second in summary.timeline))
    bands = [
        Band(
            phase.start_s,
            phase.end_s,
            phase.name if phase.counted else f"{phase.name} (not counted)",
            hatched=not phase.counted,
        )
        for phase in summary.phases
    ]
    return Axis(end, step, bands, [Rule(mark.at_s, mark.name) for mark in summary.marks])


def timeline(summary: Summary) -> Markup:
    """The client's side."""
    shared = axis(summary)
    parts = _parts(summary.timeline, shared)

    def rate(name: str) -> list[float | None]:
        return [
            sum(getattr(s, name) for s in part) / sum(s.seconds for s in part) if part else None
            for part in parts
        ]

    def each(name: str, of: Callable[[Iterable[float]], float]) -> list[float | None]:
        known = [[v for s in part if (v := getattr(s, name)) is not None] for part in parts]
        return [of(values) if values else None for values in known]

    p50, p99 = each("ttft_p50_ms", statistics.median), each("ttft_p99_ms", max)
    e2e = each("e2e_p99_ms", max)
    times = [Series("p50", p50, 0), Series("p99", p99, 1)]
    if any(value is not None for value in e2e):
        times.append(Series("end to end p99", e2e, 3))
    step = shared.step_s
    said = (
        ""
        if step == 1
        else f" Each point has {step} seconds: their mean rate, median p50 and greatest p99."
    )
    return section(
        "timeline",
        "Timeline",
        tag("p", "Shaded: phases (hatched ones are not counted). Numbered flags: faults." + said),
        shared.chart(
            "Requests per second",
            "requests/s",
            [
                Series("due", rate("due"), 7),
                Series("sent", rate("sent"), 1),
                Series("ended", rate("ended"), 0),
            ],
            named=True,
            height=190,
        ),
        shared.chart("In flight", "requests", [Series("in flight", each("in_flight", max), 0)]),
        shared.chart(
            "Time to the first token, from due",
            "time",
            times,
            words=milliseconds,
            height=200,
            log=_wide(times),
        ),
        shared.chart(
            "Not ok, per second",
            "requests/s",
            [
                Series("failed", rate("failed"), 5),
                Series("rejected", rate("rejected"), 1),
                Series("cancelled as planned", rate("cancelled"), 7),
            ],
        ),
        shared.chart(
            "Completion tokens per second", "tokens/s", [Series("tokens", rate("tokens"), 2)]
        ),
        _marks(summary),
    )


def server(summary: Summary) -> Markup | None:
    """Server metrics beside them."""
    by_name: dict[str, list[Scrape]] = {}
    for scrape in summary.scrapes:
        if scrape.samples and not scrape.name.endswith(("_bucket", "_created", "_sum")):
            by_name.setdefault(scrape.name, []).append(scrape)
    if not by_name:
        return None
    shared = axis(summary, METRIC_POINTS)
    kinds: dict[str, list[str]] = {}
    for name in by_name:
        kinds.setdefault(_kind(name), []).append(name)
    left = CHARTS
    shown: list[Child] = []
    hidden: list[str] = []
    for kind in (*(kind for kind, _ in KINDS), OTHER):
        names = sorted(kinds.get(kind, ()))
        drawn = names[:left]
        left -= len(drawn)
        hidden += names[len(drawn) :]
        charts = [_metric(name, by_name[name], shared) for name in drawn]
        if charts and kind == OTHER:
            shown.append(tag("details", tag("summary", f"{OTHER} ({len(charts)})"), charts))
        elif charts:
            shown.append(markup(tag("h3", kind), charts))
    return section(
        "server",
        "Server metrics",
        tag("p", "Read from the service while the run went on; counters are shown per second."),
        shown,
        tag("p", "Not drawn, but in summary.json: ", ", ".join(hidden), class_="note")
        if hidden
        else None,
    )


def _parts(seconds: Sequence[Second], shared: Axis) -> list[list[Second]]:
    parts: list[list[Second]] = [[] for _ in shared.starts]
    for second in seconds:
        parts[min(len(parts) - 1, second.at_s // shared.step_s)].append(second)
    return parts


def _wide(series: Sequence[Series]) -> bool:
    known = [value for one in series for value in one.values if value]
    return bool(known) and max(known) > 30 * min(known)


def _kind(name: str) -> str:
    return next((kind for kind, words in KINDS if any(word in name for word in words)), OTHER)


def _metric(name: str, scrapes: Sequence[Scrape], shared: Axis) -> Markup:
    counter = name.endswith(("_total", "_count"))
    ranked = sorted(scrapes, key=lambda scrape: -max(value for _, value in scrape.samples))
    series = [
        Series(_label(scrape), _sampled(scrape, shared, counter), number)
        for number, scrape in enumerate(ranked[:LINES])
    ]
    about = ""
    if len(ranked) > LINES:
        about = f"The {LINES} with the greatest values, of {len(ranked)}."
    unit = "per second" if counter else "value"
    return shared.chart(name, unit, series, about=about, words=amount)


def _label(scrape: Scrape) -> str:
    return " ".join(
        [scrape.target, *(f"{key}={value}" for key, value in sorted(scrape.labels.items()))]
    )


def _sampled(scrape: Scrape, shared: Axis, counter: bool) -> list[float | None]:
    """The last sample of each part; where a part has none, the one before, for so long as samples
    are apart as a rule. Counters become rates; after a restart they begin at 0."""
    samples = sorted(scrape.samples)
    if counter:
        samples = [
            (at, (value - before if value >= before else value) / (at - last))
            for (last, before), (at, value) in pairwise(samples)
            if at > last
        ]
    times = [at for at, _ in samples]
    apart = [later - at for at, later in pairwise(times)]
    patience = max(shared.step_s, 2.5 * statistics.median(apart)) if apart else shared.step_s
    values: list[float | None] = []
    for start in shared.starts:
        place = bisect_right(times, start + shared.step_s - 1e-9) - 1
        fresh = place >= 0 and start + shared.step_s - times[place] <= patience
        values.append(samples[place][1] if fresh else None)
    return values


def _marks(summary: Summary) -> Markup | None:
    if not summary.marks:
        return None
    rows = [
        [
            Cell(str(number), number),
            Cell(clock(mark.at_s), mark.at_s),
            Cell(identifier(mark.name)),
            Cell(
                "no exit status" if mark.status is None else f"exit status {mark.status}",
                kind="" if mark.status == 0 else "bad",
            ),
            Cell(mark.output[:400]),
        ]
        for number, mark in enumerate(summary.marks, 1)
    ]
    return markup(
        tag("h3", "Faults"),
        table("Commands that were run", ["flag", "at", "fault", "ended", "output"], rows, words=5),
    )
