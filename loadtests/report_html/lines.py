"""A line of a chart: its path, points and intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from loadtests.report_html.chart import Series
from loadtests.report_html.html import Child, Markup, markup, tag
from loadtests.report_html.scales import Scale

COLOURS = 8  # the style sheet has so many, each with a dash of its own


def line(series: Series, xs: Sequence[float], x_scale: Scale, y_scale: Scale) -> Markup:
    """A series over its places in `xs`."""
    place = f"s{series.style % COLOURS}"
    path: list[str] = []
    drawn: list[Child] = []
    pen = "M"
    alone = _alone(series.values)
    for number, (x, value) in enumerate(zip(xs, series.values, strict=True)):
        if value is None or not math.isfinite(value):
            pen = "M"
            continue
        px, py = x_scale(x), y_scale(value)
        path.append(f"{pen}{px:.1f} {py:.1f}")
        pen = "L"
        if series.low and series.high:
            low, high = series.low[number], series.high[number]
            if low is not None and high is not None:
                drawn.append(
                    tag(
                        "line",
                        class_=f"whisker {place}",
                        x1=px,
                        x2=px,
                        y1=y_scale(low),
                        y2=y_scale(high),
                    )
                )
        if series.points or number in alone:
            drawn.append(_point(px, py, series.style, place))
    return markup(
        tag("path", class_=f"series {place}", d="".join(path), fill="none")
        if path and series.joined
        else None,
        drawn,
    )


def key(series: Series) -> Markup:
    """What stands before the name of a series in a legend."""
    place = f"s{series.style % COLOURS}"
    return tag(
        "svg",
        tag("path", class_=f"series {place}", d="M0 6H26", fill="none"),
        _point(13, 6, series.style, place) if series.points else None,
        viewBox="0 0 26 12",
        width=26,
        height=12,
        aria_hidden="true",
    )


def _alone(values: Sequence[float | None]) -> set[int]:
    """Values between gaps: a line has no length there, so they are drawn as points."""
    return {
        number
        for number, value in enumerate(values)
        if value is not None
        and (number == 0 or values[number - 1] is None)
        and (number == len(values) - 1 or values[number + 1] is None)
    }


def _point(x: float, y: float, style: int, place: str) -> Markup:
    """A circle, square or diamond, so that colour does not say it alone."""
    name = f"point {place}"
    match style % 3:
        case 0:
            return tag("circle", class_=name, cx=x, cy=y, r=3.2)
        case 1:
            return tag("rect", class_=name, x=x - 3, y=y - 3, width=6, height=6)
        case _:
            corners = (
                f"{x:.1f},{y - 4:.1f} {x + 4:.1f},{y:.1f} {x:.1f},{y + 4:.1f} {x - 4:.1f},{y:.1f}"
            )
            return tag("polygon", class_=name, points=corners)
