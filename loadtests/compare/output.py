"""A comparison for people: a table for the terminal and a page."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from loadtests.compare.model import Comparison, Line
from loadtests.report_html.html import Markup, identifier, markup, shown, tag
from loadtests.report_html.page import page, section
from loadtests.report_html.tables import Cell, table
from loadtests.report_html.words import digits, milliseconds, share

STYLES = {"better": "green", "worse": "bold red", "noise": "dim", "too few": "dim"}
KINDS = {"better": "good", "worse": "bad"}

WORDS = (
    "Better and worse are said where that is a mistake anywhere on this page with a chance of "
    "{mistake:.0%} at most (Holm's method), and where a latency or a rate differs by "
    "{smallest:.0%} or more. Each interval is one of {confidence:.0%} for its own line alone."
)


class Shown:
    """For rich's console. Of the cuts only the lines that are better or worse, unless `full`."""

    def __init__(self, comparison: Comparison, full: bool = False) -> None:
        self._comparison, self._full = comparison, full

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        comparison = self._comparison
        yield Text(f"A  {', '.join(comparison.a)}\nB  {', '.join(comparison.b)}\n")
        for reason in comparison.forced:
            yield Text(f"FORCED: {shown(reason)}", style="bold red")
        lines = [line for line in comparison.lines if line.cut == "all"]
        yield _table("", lines)
        cuts = [line for line in comparison.lines if line.cut != "all"]
        told = cuts if self._full else [line for line in cuts if line.word in KINDS]
        if told:
            yield _table("cuts", told)
        if len(told) < len(cuts):
            yield Text(f"{len(cuts) - len(told)} lines of cuts are noise or have too few requests")
        yield Text(f"\n{conclusion(comparison)}", style="bold")
        yield Text(comparison.how, style="dim")
        for each in comparison.differing:
            yield Text(f"not the same: {shown(each)}", style="dim")


def conclusion(comparison: Comparison) -> str:
    """One sentence."""
    worse, better = len(comparison.worse), len(comparison.better)
    if all(line.word == "too few" for line in comparison.lines):
        return "Too few requests, or too short a time, to say anything."
    if not worse and not better:
        return f"B and A: no difference beyond noise ({comparison.confidence:.0%})."
    return f"B is worse in {worse} and better in {better} of {len(comparison.lines)} lines."


def html(comparison: Comparison) -> str:
    """A page of its own, which asks no network."""
    whole = [line for line in comparison.lines if line.cut == "all"]
    cuts = [line for line in comparison.lines if line.cut != "all"]
    forced = comparison.forced and tag(
        "div",
        tag("h2", "These runs should not be compared; it was forced"),
        tag("ul", [tag("li", reason) for reason in comparison.forced]),
        class_="banner bad",
        role="alert",
    )
    chips = [
        tag("span", f"{len(lines)} {word}", class_=f"chip {KINDS[word] if lines else 'plain'}")
        for word, lines in (("worse", comparison.worse), ("better", comparison.better))
    ]
    return page(
        f"{comparison.scenario}: comparison",
        markup(
            tag("h1", "A and B: ", identifier(comparison.scenario)),
            tag("p", "A: ", ", ".join(comparison.a), tag("br"), "B: ", ", ".join(comparison.b)),
            tag("p", conclusion(comparison)),
            tag("div", chips, class_="chips"),
        ),
        [
            forced or None,
            section("all", "The whole run", _lines("The whole run", whole)),
            section("cuts", "Cuts", _lines("Cuts", cuts)) if cuts else None,
            section(
                "how",
                "How it was compared",
                tag("p", comparison.how),
                tag("p", WORDS.format(
                    mistake=1 - comparison.confidence, smallest=comparison.smallest,
                    confidence=comparison.confidence,
                )),
                tag("ul", [tag("li", "Not the same: ", each) for each in comparison.differing]),
            ),
        ],
    )  # fmt: skip


def value(line: Line, of: float | None) -> str:
    """A value of the line's kind."""
    if line.kind == "latency":
        return milliseconds(of)
    return share(of) if line.kind == "share" else digits(of)


def change(line: Line, of: float | None) -> str:
    """A difference: per cent, or percentage points of a share."""
    if of is None:
        return "–"
    unit = " pp" if line.kind == "share" else "%"
    return ("+" if of > 0 else "") + digits(100 * of, 2 if abs(of) < 1 else 3) + unit


def interval(line: Line) -> str:
    """Its ends; one that is not known is open."""
    if line.difference is None:
        return "–"
    low = "…" if line.low is None else change(line, line.low)
    high = "…" if line.high is None else change(line, line.high)
    return f"{low} to {high}"


def _table(title: str, lines: Sequence[Line]) -> Table:
    made = Table(title=title or None, title_justify="left", box=None, padding=(0, 2, 0, 0))
    names = ("cut", "measure") if title else ("measure",)
    for name in names:
        made.add_column(name, overflow="fold")
    for name in ("A", "B", "B - A", "interval"):
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("")
    for line in lines:
        cells = [shown(line.cut), line.measure] if title else [line.measure]
        cells += [value(line, line.a), value(line, line.b), change(line, line.difference)]
        why = f" ({line.why})" if line.why else ""
        made.add_row(
            *(Text(cell) for cell in (*cells, interval(line))),
            Text(line.word + why, style=STYLES[line.word]),
        )
    return made


def _lines(title: str, lines: Sequence[Line]) -> Markup:
    rows = [
        [
            Cell(identifier(line.cut)),
            Cell(line.measure),
            Cell(value(line, line.a), line.a),
            Cell(value(line, line.b), line.b),
            Cell(change(line, line.difference), line.difference),
            Cell(interval(line)),
            Cell(_drawn(line)),
            Cell(digits(line.adjusted, 2), line.adjusted),
            Cell(line.word + (f" ({line.why})" if line.why else ""), kind=KINDS.get(line.word, "")),
        ]
        for line in lines
    ]
    names = ["cut", "measure", "A", "B", "B - A", "interval", "-50% … +50%", "chance", "word"]
    return table(title, names, rows, words=2)


def _drawn(line: Line) -> Markup | None:
    """The interval on a line from -50% to +50%."""
    if line.difference is None:
        return None

    def place(of: float | None, open_end: float) -> float:
        return 60 + 116 * max(-0.5, min(0.5, open_end if of is None else of))

    style = {"worse": "s1", "better": "s2"}.get(line.word, "s7")
    middle = place(line.difference, 0)
    return tag(
        "svg",
        tag("line", class_="grid", x1=60, x2=60, y1=0, y2=14),
        tag("line", class_=f"whisker {style}", x1=place(line.low, -0.5), x2=place(line.high, 0.5),
            y1=7, y2=7),
        tag("circle", class_=f"point {style}", cx=middle, cy=7, r=3.2),
        viewBox="0 0 120 14",
        width=120,
        height=14,
        role="img",
        aria_label=f"{change(line, line.difference)}, {interval(line)}",
        style="width:120px",
    )  # fmt: skip
