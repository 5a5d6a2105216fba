"""The plot of a chart, as SVG."""

from __future__ import annotations

from loadtests.report_html.axes import axes
from loadtests.report_html.chart import LEFT, RIGHT, TOP, Band, Chart, Rule
from loadtests.report_html.html import Child, Markup, tag
from loadtests.report_html.lines import line
from loadtests.report_html.scales import Scale


def plot(chart: Chart, x_scale: Scale, y_scale: Scale) -> Markup:
    """The chart without its heading and its table; a screen reader is told its range."""
    summary = f"{chart.title}: {chart.y_name} against {chart.x_name}. {_spoken(chart)}"
    return tag(
        "svg",
        tag("title", chart.title),
        [_band(band, x_scale, chart) for band in chart.bands],
        axes(chart, x_scale, y_scale),
        [line(series, chart.x, x_scale, y_scale) for series in chart.series],
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
            tag("text", rule.name, x=LEFT + 6, y=y - 4),
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
