"""The end of a run in a terminal: what it came to, whether to believe it, which goals it met."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loadtests.measure.knee import knee_of, measured, varied
from loadtests.measure.summary import Count, Cut, Latency, Load, PhaseFigures, Summary

_ROWS = 12  # of the cuts by one dimension
_DIMENSIONS = ("model", "account", "priority", "traffic", "phase")
_HEADLINES = (
    ("ttft", "first token"),
    ("tpot", "per token"),
    ("gap", "gap"),
    ("e2e", "whole answer"),
)
_SERVICE = (
    ("service_ttft", "first token"),
    ("service_e2e", "whole answer"),
    ("lag", "client's own lag"),
)
_COLUMNS: tuple[tuple[str, Callable[[Latency], float]], ...] = (
    ("p50", lambda latency: latency.p50),
    ("p90", lambda latency: latency.p90),
    ("p95", lambda latency: latency.p95),
    ("p99", lambda latency: latency.p99),
    ("p99.9", lambda latency: latency.p999),
    ("max", lambda latency: latency.max),
    ("mean", lambda latency: latency.mean),
)


def table(summary: Summary) -> Group:
    """All of it, for rich to print."""
    everything = summary.cuts[0]
    parts: list[RenderableType] = [
        Text.assemble((summary.scenario, "bold"), f"  {summary.url}  {summary.seconds:.0f} s"),
        *_invalid(summary.invalid),
        *(Text(f"  {note}", "yellow") for note in summary.notes),
        Text(""),
        _phases(summary.phases),
        Text(""),
        *_requests(everything),
        *_knee(summary.loads),
        Text(""),
        _latencies(
            everything, any(phase.closed_loop and phase.counted for phase in summary.phases)
        ),
        *_cuts(summary.cuts),
    ]
    if summary.marks:
        parts += [Text(""), *(_mark(mark.at_s, mark.name, mark.status) for mark in summary.marks)]
    if summary.counts:
        parts += [Text(""), _counts(summary.counts)]
    if summary.verdicts:
        parts += [Text(""), _verdicts(summary)]
    return Group(*parts)


def _invalid(reasons: Iterable[str]) -> list[Text]:
    found = [Text(f"  {reason}", "red") for reason in reasons]
    if found:
        found.insert(0, Text("invalid: do not use these figures", "bold red"))
    return found


def _grid(*columns: str) -> Table:
    """A table whose first column is text, folded where it is long, and whose others are figures."""
    found = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    found.add_column(columns[0], overflow="fold", header_style="dim")
    for name in columns[1:]:
        found.add_column(name, justify="right", no_wrap=True, header_style="dim")
    return found


def _phases(phases: Iterable[PhaseFigures]) -> Table:
    found = _grid("phase", "seconds", "due", "sent in time", "due/s", "sent/s", "")
    for phase in phases:
        notes = ["warm-up"] if not phase.counted else []
        if phase.closed_loop:
            notes.append("closed loop")
        found.add_row(
            Text(phase.name),
            f"{phase.end_s - phase.start_s:g}",
            str(phase.due),
            str(phase.sent),
            "-" if phase.configured_rate is None else f"{phase.configured_rate:.2f}",
            f"{phase.achieved_rate:.2f}",
            Text(", ".join(notes), "dim"),
        )
    return found


def _requests(cut: Cut) -> list[Text]:
    outcomes = Text(f"{cut.requests} requests: ")
    styles = {"error": "red", "rejected": "red", "cancelled": "yellow"}
    named = [
        Text(f"{count} {name}", styles.get(name, "") if count else "dim")
        for name, count in cut.outcomes.items()
    ]
    outcomes.append_text(Text(", ").join(named))
    if cut.checked:
        words = f"; {cut.wrong} of {cut.checked} checked answers wrong"
        outcomes.append(words, "bold red" if cut.wrong else "")
    good = "-" if cut.good_share is None else f"{cut.good_share:.1%}"
    unknown = f" ({cut.usage_missing} requests did not say theirs)" if cut.usage_missing else ""
    rates = (
        f"{cut.requests_per_s:.2f} requests/s, {cut.tokens_per_s:.1f} tokens/s, "
        f"goodput {cut.goodput_per_s:.2f}/s ({good} met their SLO)"
    )
    tokens = f"tokens: {cut.prompt_tokens} prompt, {cut.completion_tokens} completion{unknown}"
    errors = [Text(f"  {count} {kind}", "red") for kind, count in cut.errors.items()]
    return [outcomes, Text(rates), Text(tokens), *errors]


def _knee(loads: Sequence[Load]) -> list[Text]:
    """Where there were loads enough to have one, as of a ramp."""
    if not varied(loads):
        return []
    measure = measured(loads)
    name = "first token" if measure == "ttft" else "whole answer"
    found = knee_of(loads, measure)
    if found is None:
        highest = max(load.due_rate for load in loads)
        return [Text(f"no knee up to {highest:.1f} requests/s ({name}, p99)")]
    return [Text(f"the knee is at {found:.1f} requests/s ({name}, p99)")]


def _latencies(cut: Cut, closed: bool) -> Table:
    found = _grid("milliseconds", "count", *(name for name, _ in _COLUMNS))
    begin = (
        "from due" if not closed else "from due, which in a closed loop is the moment of sending"
    )
    found.add_row(Text(begin, "bold"))
    for name, words in _HEADLINES:
        _latency(found, words, getattr(cut, name))
    found.add_row(Text("service time, from sent", "dim"))
    for name, words in _SERVICE:
        _latency(found, words, getattr(cut, name), "dim")
    return found


def _latency(rows: Table, words: str, latency: Latency | None, style: str = "") -> None:
    if latency is not None:
        figures = (Text(ms(of(latency)), style) for _, of in _COLUMNS)
        rows.add_row(Text(f"  {words}", style), Text(str(latency.count), style), *figures)


def _cuts(cuts: Iterable[Cut]) -> list[RenderableType]:
    """By each dimension that has several values."""
    by: dict[str, list[Cut]] = {}
    for cut in cuts:
        named = [name for name in _DIMENSIONS if getattr(cut, name) is not None]
        if len(named) == 1:
            by.setdefault(named[0], []).append(cut)
    found: list[RenderableType] = []
    for dimension, rows in by.items():
        if len(rows) < 2:
            continue
        figures = _grid(
            f"by {dimension}", "requests", "errors", "ttft p50", "p99", "tpot p50", "e2e p99",
            "tokens/s", "good/s",
        )  # fmt: skip
        for cut in rows[:_ROWS]:
            failed = cut.outcomes.get("error", 0) + cut.outcomes.get("rejected", 0)
            figures.add_row(
                Text(str(getattr(cut, dimension)) or "(none)"),
                str(cut.requests),
                Text(str(failed), "red" if failed else ""),
                _at(cut.ttft, "p50"),
                _at(cut.ttft, "p99"),
                _at(cut.tpot, "p50"),
                _at(cut.e2e, "p99"),
                f"{cut.tokens_per_s:.1f}",
                f"{cut.goodput_per_s:.2f}",
            )
        if len(rows) > _ROWS:
            figures.add_row(Text(f"and {len(rows) - _ROWS} more in summary.json", "dim"))
        found += [Text(""), figures]
    return found


def _at(latency: Latency | None, percentile: str) -> str:
    return "-" if latency is None else ms(getattr(latency, percentile))


def _mark(at_s: float, name: str, status: int | None) -> Text:
    words = "took too long" if status is None else f"exit {status}"
    return Text(f"{at_s:8.1f} s  {name}: {words}", "magenta" if status == 0 else "bold red")


def _counts(counts: Iterable[Count]) -> Table:
    found = _grid("client and service", "client", "service", "explained", "finding", "")
    found.columns[-1].justify, found.columns[-1].no_wrap = "left", False
    source = ""
    for count in counts:
        if count.source != source:
            source = count.source
            found.add_row(Text(source, "dim"))
        finding = count.unexplained
        found.add_row(
            Text(" ".join(filter(None, (count.what, count.model, count.account)))),
            str(count.client),
            str(count.server),
            str(count.explained) if count.explained else "",
            Text(str(finding) if finding else "", "bold red"),
            Text(count.note, "red" if finding else "dim"),
        )
    return found


def _verdicts(summary: Summary) -> Table:
    found = _grid("goal", "value", "")
    for verdict in summary.verdicts:
        value = "not measured" if verdict.value is None else f"{verdict.value:g}"
        met = Text("met", "green") if verdict.met else Text("missed", "bold red")
        found.add_row(Text(verdict.goal), value, met)
    return found


def ms(value: float) -> str:
    """Milliseconds, with as many digits as say something."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"
