"""The same figures cut by model, account, traffic, priority and phase."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal, get_args

from loadtests.measure.summary import Cut, Latency, Summary
from loadtests.report_html.html import Markup, identifier, markup, tag
from loadtests.report_html.page import section
from loadtests.report_html.tables import Cell, table
from loadtests.report_html.words import digits, milliseconds, share

Dimension = Literal["model", "account", "traffic", "priority", "phase"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
ROWS = 1200  # of one table; the others are in summary.json
CROSSED = 150


def marginal(summary: Summary, dimension: str) -> list[Cut]:
    """The cuts of this dimension alone."""
    return [cut for cut in summary.cuts if _dimensions(cut) == [dimension]]


def named(cut: Cut, dimension: str) -> str:
    """Which one it is; one without a name says so."""
    return str(getattr(cut, dimension)) or f"(no {dimension})"


def tables(summary: Summary) -> Markup | None:
    """A table for each dimension that has more than one, and one of the crossed cuts."""
    parts = [
        _table(f"By {dimension}", dimension, cuts, partial(named, dimension=dimension))
        for dimension in DIMENSIONS
        if len(cuts := marginal(summary, dimension)) > 1
    ]
    crossed = [cut for cut in summary.cuts if len(_dimensions(cut)) > 1]
    if crossed:
        both = _table(
            "Crossed",
            "of",
            crossed,
            _crossed,
            limit=CROSSED,
        )
        parts.append(tag("details", tag("summary", f"Crossed cuts ({len(crossed)})"), both))
    if not parts:
        return None
    return section(
        "cuts",
        "Cuts",
        tag("p", "Counted requests; latencies from due. A click on a column's name sorts by it."),
        parts,
    )


def errors(summary: Summary) -> Markup | None:
    """What went wrong, by kind."""
    whole = summary.cuts[0]
    if not whole.errors:
        return None
    total = sum(whole.errors.values())
    rows = [
        [
            Cell(identifier(kind)),
            Cell(digits(count, 9), count),
            Cell(share(count / whole.requests), count / whole.requests, part=count / total),
        ]
        for kind, count in sorted(whole.errors.items(), key=lambda item: -item[1])
    ]
    return section(
        "errors",
        "Errors",
        table("Errors by kind", ["kind", "requests", "of all requests"], rows),
    )


def _crossed(cut: Cut) -> str:
    return ", ".join(f"{dimension} {named(cut, dimension)}" for dimension in _dimensions(cut))


def _dimensions(cut: Cut) -> list[str]:
    return [dimension for dimension in DIMENSIONS if getattr(cut, dimension) is not None]


def _table(
    title: str,
    what: str,
    cuts: Iterable[Cut],
    name: Callable[[Cut], str],
    limit: int = ROWS,
) -> Markup:
    ranked = sorted(cuts, key=lambda cut: -cut.requests)
    shown = ranked[:limit]
    slowest = {
        measure: max((value for cut in shown if (value := _p99(cut, measure))), default=0.0)
        for measure in ("ttft", "e2e")
    }
    most = max((cut.requests for cut in shown), default=1)
    rows = [[Cell(identifier(name(cut))), *_figures(cut, most, slowest)] for cut in shown]
    left = len(ranked) - len(shown)
    return markup(
        tag("h3", title),
        tag("p", f"{left} with fewer requests are in summary.json.", class_="note")
        if left
        else None,
        table(
            title,
            [
                what,
                "requests",
                "ok",
                "rejected",
                "errors",
                "wrong",
                "good",
                "goodput/s",
                "TTFT p50",
                "TTFT p99",
                "TPOT p50",
                "gap p99",
                "e2e p99",
                "tokens/s",
            ],
            rows,
        ),
    )


def _figures(cut: Cut, most: int, slowest: dict[str, float]) -> list[Cell]:
    outcomes, count = cut.outcomes, max(1, cut.requests)
    failed = outcomes.get("error", 0)
    return [
        Cell(digits(cut.requests, 9), cut.requests, part=cut.requests / max(1, most)),
        _share(outcomes.get("ok", 0), count),
        _share(outcomes.get("rejected", 0), count),
        _share(failed, count, bad=failed > 0),
        Cell(digits(cut.wrong, 9), cut.wrong, kind="bad" if cut.wrong else "")
        if cut.checked
        else Cell("–"),
        Cell(share(cut.good_share), -1 if cut.good_share is None else cut.good_share),
        Cell(digits(cut.goodput_per_s), cut.goodput_per_s),
        _time(cut.ttft, "p50"),
        _time(cut.ttft, "p99", slowest["ttft"]),
        _time(cut.tpot, "p50"),
        _time(cut.gap, "p99"),
        _time(cut.e2e, "p99", slowest["e2e"]),
        Cell(digits(cut.tokens_per_s), cut.tokens_per_s),
    ]


def _share(part: int, of: int, bad: bool = False) -> Cell:
    return Cell(share(part / of), part / of, kind="bad" if bad else "")


def _time(latency: Latency | None, percentile: str, slowest: float = 0.0) -> Cell:
    if latency is None or not latency.count:
        return Cell("–", -1)
    value: float = getattr(latency, percentile)
    return Cell(milliseconds(value), value, part=value / slowest if slowest else None)


def _p99(cut: Cut, measure: str) -> float:
    latency: Latency | None = getattr(cut, measure)
    return latency.p99 if latency and latency.count else 0.0
