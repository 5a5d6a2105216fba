"""Coarser and coarser: cells merged into the cuts that a report shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from loadtests.measure.cell import OTHER, TIMES, Cell, Key
from loadtests.measure.summary import Cut, Latency

Dimension = Literal["model", "account", "priority", "traffic", "phase"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)

# What a report is cut by, after all requests together and each dimension alone.
PAIRS: tuple[tuple[Dimension, ...], ...] = (
    ("model", "account"),
    ("model", "phase"),
    ("account", "phase"),
    ("traffic", "phase"),
)
_NAMES = 200  # of one dimension that have a cut of their own; the others are OTHER
_NAMES_OF_PAIRS = 20
_KINDS = 50  # of errors that a cut names


@dataclass(frozen=True, slots=True)
class Window:
    """When a phase began and was to end, in microseconds since the run's start."""

    start_us: int
    end_us: int


class Span:
    """Cells that are counted together."""

    def __init__(self) -> None:
        self.cell = Cell(counted=True)
        self._last: dict[str, int] = {}  # of each phase: the end of its last whole answer

    def add(self, phase: str, cell: Cell) -> None:
        self.cell.merge(cell)
        self._last[phase] = max(self._last.get(phase, 0), cell.last_us)

    def seconds(self, windows: Mapping[str, Window]) -> float:
        """The length of the time that its phases and their whole answers cover."""
        spans = sorted(
            (windows[phase].start_us, max(windows[phase].end_us, last))
            for phase, last in self._last.items()
        )
        covered, until = 0, 0
        for start, end in spans:
            covered += max(0, end - max(start, until))
            until = max(until, end)
        return covered / 1e6


def select(
    cells: Mapping[Key, Cell], wanted: Mapping[Dimension, str | int | None]
) -> Iterator[tuple[Key, Cell]]:
    """The counted cells that have these values; None is any."""
    places = [
        (DIMENSIONS.index(name), value) for name, value in wanted.items() if value is not None
    ]
    for key, cell in cells.items():
        if cell.counted and all(key[place] == value for place, value in places):
            yield key, cell


def span(cells: Iterable[tuple[Key, Cell]]) -> Span:
    """Cells together."""
    together = Span()
    for key, cell in cells:
        together.add(key[-1], cell)
    return together


def cuts(cells: Mapping[Key, Cell], windows: Mapping[str, Window]) -> list[Cut]:
    """All counted requests, then each dimension, then the pairs; of one with a single value only
    the cut by it alone."""
    counted = list(select(cells, {}))
    everything = cut({}, span(counted), windows)
    found = [everything]
    values = {
        dimension: {key[place] for key, _ in counted} for place, dimension in enumerate(DIMENSIONS)
    }
    varied = {dimension for dimension in DIMENSIONS if len(values[dimension]) > 1}
    for dimension in DIMENSIONS:
        if dimension in varied:
            found += _cut_by((dimension,), counted, windows, _NAMES)
        else:  # the same figures again
            found += [
                everything.model_copy(update={dimension: value})
                for value in values[dimension]
                if value is not None
            ]
    for by in PAIRS:
        if varied.issuperset(by):
            found += _cut_by(by, counted, windows, _NAMES_OF_PAIRS)
    return found


def _cut_by(
    by: tuple[Dimension, ...],
    counted: list[tuple[Key, Cell]],
    windows: Mapping[str, Window],
    names: int,
) -> Iterator[Cut]:
    places = [DIMENSIONS.index(dimension) for dimension in by]
    kept = [_frequent(place, counted, names) for place in places]
    spans: dict[tuple[str | int | None, ...], Span] = {}
    for key, cell in counted:
        values = tuple(
            key[place] if key[place] in names_ else OTHER
            for place, names_ in zip(places, kept, strict=True)
        )
        if None in values:  # no priority
            continue
        spans.setdefault(values, Span()).add(key[-1], cell)
    ordered = sorted(spans.items(), key=lambda item: (-item[1].cell.requests, str(item[0])))
    if by[-1] == "phase":  # in the order in which they were
        order = list(windows)
        ordered.sort(key=lambda item: order.index(str(item[0][-1])))
    for values, together in ordered:
        yield cut(dict(zip(by, values, strict=True)), together, windows)


def _frequent(place: int, counted: list[tuple[Key, Cell]], names: int) -> set[str | int | None]:
    """The values with most requests. Phases and traffic are the scenario's, so few: all of them."""
    requests: Counter[str | int | None] = Counter()
    for key, cell in counted:
        requests[key[place]] += cell.requests
    if DIMENSIONS[place] in ("phase", "traffic", "priority"):
        return set(requests)
    ordered = sorted(requests.items(), key=lambda item: (-item[1], str(item[0])))
    return {value for value, _ in ordered[:names]}


def cut(
    of: Mapping[Dimension, str | int | None], together: Span, windows: Mapping[str, Window]
) -> Cut:
    """The figures of cells together."""
    cell, seconds = together.cell, together.seconds(windows)
    latencies: dict[str, Latency | None] = dict.fromkeys(TIMES)
    latencies.update((name, histogram.latency()) for name, histogram in cell.histograms())
    return Cut.model_validate(
        {
            **of,
            "requests": cell.requests,
            "outcomes": cell.outcomes,
            "errors": bounded(cell.errors or {}),
            "prompt_tokens": cell.prompt_tokens,
            "cached_tokens": cell.cached_tokens,
            "completion_tokens": cell.completion_tokens,
            "usage_missing": cell.usage_missing,
            "seconds": seconds,
            "requests_per_s": rate(cell.ok + cell.cancelled, seconds),
            "tokens_per_s": rate(cell.completion_tokens, seconds),
            "good": cell.good,
            "goodput_per_s": rate(cell.good, seconds),
            "checked": cell.checked,
            "wrong": cell.wrong,
            **latencies,
        }
    )


def rate(count: int, seconds: float) -> float:
    """How many in a second."""
    return count / seconds if seconds else 0.0


def bounded(errors: Mapping[str, int]) -> dict[str, int]:
    """The most frequent kinds by name, the others together."""
    ordered = sorted(errors.items(), key=lambda item: (item[0] == OTHER, -item[1], item[0]))
    found = dict(ordered[:_KINDS])
    rest = sum(count for _, count in ordered[_KINDS:])
    if rest:
        found[OTHER] = found.get(OTHER, 0) + rest
    return found
