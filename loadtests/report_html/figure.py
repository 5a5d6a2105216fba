"""A chart in its place on a page: heading, legend, plot, and a table of its figures beneath.

The table is what a screen reader reads and where the page's script finds the values to show under
the pointer, so that every figure is in the page once.
"""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.report_html.axes import scales
from loadtests.report_html.chart import Chart, Series
from loadtests.report_html.html import Markup, escape, identifier, tag
from loadtests.report_html.lines import key
from loadtests.report_html.plot import plot
from loadtests.report_html.scales import Scale
from loadtests.report_html.words import clock


def figure(chart: Chart) -> Markup:
    """The chart with its heading, legend, plot and table."""
    if not any(value is not None for series in chart.series for value in series.values):
        return tag(
            "figure",
            tag("h4", chart.title),
            tag("p", "Nothing was measured.", class_="none"),
            class_="chart",
        )
    x_scale, y_scale = scales(chart)
    return tag(
        "figure",
        tag("figcaption", tag("h4", chart.title), _legend(chart.series)),
        tag("p", chart.about, class_="about") if chart.about else None,
        tag("div", plot(chart, x_scale, y_scale), class_="plot"),
        _table(chart, x_scale),
        class_="chart",
    )


def _legend(series: Sequence[Series]) -> Markup | None:
    if len(series) < 2:
        return None
    return tag(
        "ul", [tag("li", key(one), identifier(one.name, 60)) for one in series], class_="legend"
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
