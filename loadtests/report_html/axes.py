"""The axes of a chart: where values stand, and the ticks with their names."""

from __future__ import annotations

import math

from loadtests.report_html.chart import LEFT, RIGHT, Chart
from loadtests.report_html.html import Child, Markup, markup, tag
from loadtests.report_html.scales import Scale, clock_step, linear, logarithmic
from loadtests.report_html.words import clock


def scales(chart: Chart) -> tuple[Scale, Scale]:
    """Where the values of x and of y stand."""
    left, right = LEFT, chart.width - RIGHT
    if chart.x_range:
        low, high = chart.x_range
        x_scale = Scale(
            low,
            max(high, low * 1.0001, low + 1e-9),
            left,
            right,
            log=chart.x_kind in ("log", "tail"),
        )
    elif chart.x_kind in ("log", "tail"):
        x_scale = logarithmic(chart.x, left, right)
    elif chart.x_kind == "time":
        x_scale = Scale(min(chart.x), max(max(chart.x), min(chart.x) + 1), left, right)
    else:
        furthest = max([*chart.x, *(rule.at for rule in chart.rules if rule.axis == "x")])
        x_scale = Scale(0.0, 1.03 * furthest or 1.0, left, right)
    values = [
        value
        for series in chart.series
        for values in (series.values, series.low, series.high)
        for value in values
        if value is not None
    ] + [rule.at for rule in chart.rules if rule.axis == "y"]
    top, bottom = chart.top, chart.bottom
    if chart.y_kind == "share":
        y_scale = Scale(0, 1, bottom, top)
    elif chart.y_kind == "log":
        y_scale = logarithmic(values, bottom, top)
    else:
        y_scale = linear(values, bottom, top)
    return x_scale, y_scale


def axes(chart: Chart, x_scale: Scale, y_scale: Scale) -> Markup:
    """The grid, the ticks and their names."""
    bottom, right = chart.bottom, chart.width - RIGHT
    rows = [0.0, 0.25, 0.5, 0.75, 1.0] if chart.y_kind == "share" else y_scale.ticks(4)
    drawn: list[Child] = []
    for value in rows:
        y = y_scale(value)
        drawn.append(tag("line", class_="grid", x1=LEFT, x2=right, y1=y, y2=y))
        drawn.append(tag("text", chart.y_words(value), x=LEFT - 6, y=y + 3.5, text_anchor="end"))
    for value, name in _columns(chart, x_scale):
        x = x_scale(value)
        drawn.append(tag("line", class_="tick", x1=x, x2=x, y1=bottom, y2=bottom + 4))
        drawn.append(tag("text", name, x=x, y=bottom + 16, text_anchor="middle"))
    drawn.append(tag("line", class_="axis", x1=LEFT, x2=right, y1=bottom, y2=bottom))
    if chart.x_kind != "time":
        middle = (LEFT + right) / 2
        drawn.append(
            tag("text", chart.x_name, class_="name", x=middle, y=bottom + 30, text_anchor="middle")
        )
    return markup(drawn)


def _columns(chart: Chart, scale: Scale) -> list[tuple[float, str]]:
    if chart.x_kind == "time":
        step = clock_step(scale.high - scale.low, max(3, int(chart.width / 110)))
        first, last = math.ceil(scale.low / step), math.floor(scale.high / step)
        return [(number * step, clock(number * step)) for number in range(first, last + 1)]
    if chart.x_kind == "tail":
        # x is 1/(1 - p): every decade is a nine more.
        tails = [(1, "0%"), (2, "50%"), (10, "90%"), (100, "99%"), (1e3, "99.9%"), (1e4, "99.99%")]
        return [(x, name) for x, name in tails if x <= scale.high * 1.001]
    return [(value, chart.x_words(value)) for value in scale.ticks(max(3, int(chart.width / 130)))]
