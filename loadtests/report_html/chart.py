"""A chart: lines over a shared x, as SVG, with its figures in a table beneath it.

The table is what a screen reader reads and where the page's script finds the values to show under
the pointer, so that every figure is in the page once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from loadtests.report_html.html import Child, Markup, escape, identifier, markup, tag
from loadtests.report_html.scales import Scale, clock_step, linear, logarithmic
from loadtests.report_html.words import clock, digits

COLOURS = 8  # the style sheet has so many, each with a dash of its own
LEFT, RIGHT, TOP, BOTTOM = 62.0, 24.0, 12.0, 34.0
NAMES = 30.0  # above a plot, where the names of bands and the flags of rules stand


@dataclass(frozen=True)
class Series:
    """A line. `low` and `high` are the ends of an interval at each of its points."""

    name: str
    values: Sequence[float | None]
    style: int = 0
    points: bool = False
    joined: bool = True  # false: points alone
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()


@dataclass(frozen=True)
class Band:
    """A part of the x axis that is shaded: a phase."""

    start: float
    end: float
    name: str
    hatched: bool = False


@dataclass(frozen=True)
class Rule:
    """A line across the chart at one value: a fault's time, a bar, the knee."""

    at: float
    name: str
    axis: Literal["x", "y"] = "x"


@dataclass(frozen=True)
class Chart:
    """All values of a series are at the places in `x`; None leaves a gap."""

    title: str
    x: Sequence[float]
    series: Sequence[Series]
    x_name: str
    y_name: str
    about: str = ""
    x_kind: Literal["linear", "log", "time", "tail"] = "linear"
    y_kind: Literal["linear", "log", "share"] = "linear"
    x_words: Callable[[float], str] = digits
    y_words: Callable[[float | None], str] = digits
    x_range: tuple[float, float] | None = None
    bands: Sequence[Band] = ()
    rules: Sequence[Rule] = ()
    width: float = 960.0
    height: float = 200.0
    # Names of the bands and rules are written where there is room: once in a stack of charts.
    named: bool = True

    @property
    def top(self) -> float:
        """Where the plot begins."""
        return TOP + NAMES if self.x_kind == "time" and self.named else TOP

    @property
    def bottom(self) -> float:
        """Where the plot ends."""
        return self.height - (BOTTOM - 12 if self.x_kind == "time" else BOTTOM)


def figure(chart: Chart) -> Markup:
    """The chart with its heading, legend, plot and table."""
    if not any(value is not None for series in chart.series for value in series.values):
        return tag(
            "figure",
            tag("h4", chart.title),
            tag("p", "Nothing was measured.", class_="none"),
            class_="chart",
        )
    x_scale, y_scale = _scales(chart)
    return tag(
        "figure",
        tag("figcaption", tag("h4", chart.title), _legend(chart.series)),
        tag("p", chart.about, class_="about") if chart.about else None,
        tag("div", _svg(chart, x_scale, y_scale), class_="plot"),
        _table(chart, x_scale),
        class_="chart",
    )


def _scales(chart: Chart) -> tuple[Scale, Scale]:
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


def _svg(chart: Chart, x_scale: Scale, y_scale: Scale) -> Markup:
    summary = f"{chart.title}: {chart.y_name} against {chart.x_name}. {_spoken(chart)}"
    return tag(
        "svg",
        tag("title", chart.title),
        [_band(band, x_scale, chart) for band in chart.bands],
        _axes(chart, x_scale, y_scale),
        [_line(series, chart.x, x_scale, y_scale) for series in chart.series],
        [
            _rule(rule, number, chart, x_scale, y_scale)
            for number, rule in enumerate(chart.rules, 1)
        ],
        tag("line", class_="cross", y1=chart.top, y2=chart.bottom, x1=-9, x2=-9),
        viewBox=f"0 0 {chart.width:g} {chart.height:g}",
        role="img",
        tabindex=0,
        aria_label=summary,
        style=f"min-width:{chart.width * 0.75:g}px",
    )


def _spoken(chart: Chart) -> str:
    said = []
    for series in chart.series:
        known = [value for value in series.values if value is not None]
        if known:
            low, high = chart.y_words(min(known)), chart.y_words(max(known))
            said.append(f"{series.name} from {low} to {high}")
    return "; ".join(said) + ". The figures are in the table below."


def _axes(chart: Chart, x_scale: Scale, y_scale: Scale) -> Markup:
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


def _line(series: Series, xs: Sequence[float], x_scale: Scale, y_scale: Scale) -> Markup:
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


def _band(band: Band, scale: Scale, chart: Chart) -> Markup:
    start, end = scale(band.start), scale(band.end)
    room = int((end - start - 6) / 6.4)
    name = band.name if len(band.name) <= room else f"{band.name[: room - 1]}…"
    return tag(
        "g",
        tag("title", band.name),
        tag("rect", x=start, y=4, width=max(0.0, end - start), height=chart.bottom - 4),
        tag("text", name, x=start + 4, y=15) if chart.named and room > 3 else None,
        class_="band hatched" if band.hatched else "band",
    )


def _rule(rule: Rule, number: int, chart: Chart, x_scale: Scale, y_scale: Scale) -> Markup:
    bottom, right = chart.bottom, chart.width - RIGHT
    if rule.axis == "y":
        y = y_scale(rule.at)
        return tag(
            "g",
            tag("title", rule.name),
            tag("line", x1=LEFT, x2=right, y1=y, y2=y),
            tag("text", rule.name, x=right - 4, y=y - 4, text_anchor="end"),
            class_="rule bar",
        )
    x = x_scale(rule.at)
    if chart.x_kind == "time":
        # A flag with its number: the list below says what it was.
        flag: Child = [
            tag("path", d=f"M{x:.1f} 22h13v13h-13z", class_="flag"),
            tag("text", str(number), x=x + 6.5, y=32, text_anchor="middle", class_="flag"),
        ]
    else:
        left_of = x > chart.width * 0.7
        flag = tag(
            "text",
            rule.name,
            x=x - 5 if left_of else x + 5,
            y=TOP + 4,
            text_anchor="end" if left_of else "start",
        )
    return tag(
        "g",
        tag("title", rule.name),
        tag("line", x1=x, x2=x, y1=22 if chart.top > TOP else 4, y2=bottom),
        flag if chart.named else None,
        class_="rule",
    )


def _legend(series: Sequence[Series]) -> Markup | None:
    if len(series) < 2:
        return None
    return tag(
        "ul",
        [
            tag(
                "li",
                tag(
                    "svg",
                    tag("path", class_=f"series s{one.style % COLOURS}", d="M0 6H26", fill="none"),
                    _point(13, 6, one.style, f"s{one.style % COLOURS}") if one.points else None,
                    viewBox="0 0 26 12",
                    width=26,
                    height=12,
                    aria_hidden="true",
                ),
                identifier(one.name, 60),
            )
            for one in series
        ],
        class_="legend",
    )


def _table(chart: Chart, x_scale: Scale) -> Markup:
    x_words = clock if chart.x_kind == "time" else chart.x_words
    rows = "".join(
        f'<tr data-x="{x_scale(x):.1f}"><th scope="row">{escape(x_words(x))}</th>'
        + "".join(f"<td>{_cell(chart, series, number)}</td>" for series in chart.series)
        + "</tr>"
        for number, x in enumerate(chart.x)
    )
    head = [
        tag("th", name, scope="col") for name in (chart.x_name, *(s.name for s in chart.series))
    ]
    return tag(
        "details",
        tag("summary", "Figures"),
        tag(
            "div",
            tag(
                "table",
                tag("caption", f"{chart.title} ({chart.y_name})"),
                tag("thead", tag("tr", head)),
                tag("tbody", Markup(rows)),
            ),
            class_="scroll",
        ),
        class_="figures",
    )


def _cell(chart: Chart, series: Series, number: int) -> Markup:
    said = chart.y_words(series.values[number])
    if series.low and series.high:
        said += f" ({chart.y_words(series.low[number])} to {chart.y_words(series.high[number])})"
    return escape(said)
