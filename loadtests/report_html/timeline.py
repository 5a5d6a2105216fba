"""What happened when, as the client saw it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from loadtests.measure.summary import Second, Summary
from loadtests.report_html.chart import Series
from loadtests.report_html.html import Markup, identifier, markup, tag
from loadtests.report_html.page import section
from loadtests.report_html.tables import Cell, table
from loadtests.report_html.time_axis import Axis, axis
from loadtests.report_html.words import clock, milliseconds


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


def _parts(seconds: Sequence[Second], shared: Axis) -> list[list[Second]]:
    parts: list[list[Second]] = [[] for _ in shared.starts]
    for second in seconds:
        parts[min(len(parts) - 1, second.at_s // shared.step_s)].append(second)
    return parts


def _wide(series: Sequence[Series]) -> bool:
    known = [value for one in series for value in one.values if value]
    return bool(known) and max(known) > 30 * min(known)


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
