"""The bars of a scenario, and whether the run cleared them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from loadtests.measure.cell import Cell, Key
from loadtests.measure.cuts import Span, Window, rate, select, span
from loadtests.measure.histogram import Histogram
from loadtests.measure.memory import memory_growth_mb
from loadtests.measure.summary import Count, Scrape, Verdict
from loadtests.scenarios.model import Goal

_TIME = re.compile(
    r"(?P<time>ttft|tpot|gap|e2e|service_ttft|service_e2e|lag)"
    r"_(?P<of>mean|min|max|p50|p75|p90|p95|p99|p999)_ms"
)
_PERMILLE = {"p50": 500, "p75": 750, "p90": 900, "p95": 950, "p99": 990, "p999": 999}

_COUNTED: dict[str, Callable[[Cell, float], float | None]] = {
    "error_share": lambda cell, _: _share(cell.error, cell.requests),
    "rejected_share": lambda cell, _: _share(cell.rejected, cell.requests),
    # Callers that left as planned are neither good nor bad.
    "goodput_share": lambda cell, _: _share(cell.good, cell.requests - cell.cancelled),
    "wrong_answers": lambda cell, _: float(cell.wrong) if cell.checked else None,
    "tokens_per_s": lambda cell, seconds: rate(cell.completion_tokens, seconds),
    "requests_per_s": lambda cell, seconds: rate(cell.ok + cell.cancelled, seconds),
    "goodput_per_s": lambda cell, seconds: rate(cell.good, seconds),
}


def verdicts(
    goals: Sequence[Goal],
    cells: Mapping[Key, Cell],
    windows: Mapping[str, Window],
    counts: Sequence[Count],
    scrapes: Sequence[Scrape] = (),
) -> list[Verdict]:
    """One for each goal. What was not measured has no value, and is missed if not optional."""
    found: list[Verdict] = []
    for goal in goals:
        if goal.measure == "unreconciled":
            value = float(sum(count.unexplained for count in counts)) if counts else None
        elif goal.measure == "memory_growth_mb":
            of = [windows[goal.phase]] if goal.phase else list(windows.values())
            start, end = min(each.start_us for each in of), max(each.end_us for each in of)
            value = memory_growth_mb(scrapes, start / 1e6, end / 1e6)
        else:
            wanted = select(
                cells,
                {
                    "model": goal.model,
                    "account": goal.account,
                    "traffic": goal.traffic,
                    "phase": goal.phase,
                },
            )
            value = _value(goal.measure, span(wanted), windows)
        met = (goal.optional and value is None) or (
            value is not None
            and (goal.at_most is None or value <= goal.at_most)
            and (goal.at_least is None or value >= goal.at_least)
        )
        found.append(Verdict(goal=describe(goal), value=value, met=met))
    return found


def describe(goal: Goal) -> str:
    """As `ttft_p99_ms at most 500 (traffic chat, phase steady)`."""
    bars = [
        f"{words} {bar:g}"
        for words, bar in (("at least", goal.at_least), ("at most", goal.at_most))
        if bar is not None
    ]
    where = [
        f"{name} {value}"
        for name in ("model", "account", "traffic", "phase")
        if (value := getattr(goal, name)) is not None
    ]
    return f"{goal.measure} {' and '.join(bars)}" + (f" ({', '.join(where)})" if where else "")


def _value(measure: str, together: Span, windows: Mapping[str, Window]) -> float | None:
    """Raises ValueError for a measure that there is not."""
    cell = together.cell
    if measure in _COUNTED:
        return _COUNTED[measure](cell, together.seconds(windows)) if cell.requests else None
    time = _TIME.fullmatch(measure)
    if time is None:
        raise ValueError(f"there is no measure {measure!r}")
    histogram: Histogram | None = getattr(cell, time["time"])
    if histogram is None:
        return None
    of = time["of"]
    if of == "mean":
        return histogram.total / len(histogram) / 1000
    if of in ("min", "max"):
        return (histogram.lowest if of == "min" else histogram.highest) / 1000
    return histogram.percentiles((_PERMILLE[of],))[0] / 1000


def _share(count: int, of: int) -> float | None:
    return count / of if of else None
