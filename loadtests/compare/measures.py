"""What is compared, and the blocks of time that it is counted in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from loadtests.compare.model import Kind
from loadtests.compare.reading import Observation
from loadtests.measure.summary import Cut, Latency, PhaseFigures
from loadtests.statistics.blocks import Mean, Sample

BLOCKS = 20  # of a run; with so many Student's distribution is near enough to the normal one
SHORTEST_S = 5.0  # a block; queues and steps of an engine are over sooner, mostly
FEWEST = 6  # blocks that are judged at all
Timed = Literal["ttft", "tpot", "gap", "e2e"]


@dataclass(frozen=True)
class Measure:
    """One figure of a cut. `quantile` is set for latencies."""

    name: str
    kind: Kind
    low_is_good: bool
    of_cut: Callable[[Cut], float | None]  # from a summary
    timed: Timed | None = None
    quantile: float = 0.0
    # From observations: what is counted of each, and whether it is one of those that it is part of.
    counts: Callable[[Observation], float] | None = None
    part_of: Callable[[Observation], bool] | None = None

    def enough(self, count: int) -> bool:
        """Whether so many values have ten above the quantile: else it is a few requests' luck."""
        return count * (1 - self.quantile) >= 10 if self.timed else count >= 50


def _latency(timed: Timed, percentile: str, quantile: float) -> Measure:
    def of_cut(cut: Cut) -> float | None:
        latency: Latency | None = getattr(cut, timed)
        return None if latency is None or not latency.count else getattr(latency, percentile)

    return Measure(f"{timed} {percentile}", "latency", True, of_cut, timed, quantile)


def _share(name: str, outcome: str) -> Measure:
    return Measure(
        name,
        "share",
        True,
        lambda cut: cut.outcomes.get(outcome, 0) / cut.requests if cut.requests else None,
        counts=lambda seen: seen.outcome == outcome,
        part_of=lambda seen: True,
    )


SHARES = (
    _share("errors", "error"),
    _share("rejected", "rejected"),
    Measure(
        "wrong answers", "share", True,
        lambda cut: cut.wrong / cut.checked if cut.checked else None,
        counts=lambda seen: bool(seen.wrong),
        part_of=lambda seen: seen.wrong is not None,
    ),
    Measure(
        "good", "share", False, lambda cut: cut.good_share,
        counts=lambda seen: seen.good,
        part_of=lambda seen: seen.outcome != "cancelled",
    ),
)  # fmt: skip
RATES = (
    Measure("requests/s", "rate", False, lambda cut: cut.requests_per_s,
            counts=lambda seen: seen.outcome in ("ok", "cancelled")),
    Measure("tokens/s", "rate", False, lambda cut: cut.tokens_per_s,
            counts=lambda seen: seen.tokens),
    Measure("goodput/s", "rate", False, lambda cut: cut.goodput_per_s,
            counts=lambda seen: seen.good),
)  # fmt: skip
LATENCIES = (
    *(_latency("ttft", name, q) for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))),
    *(_latency("tpot", name, q) for name, q in (("p50", 0.5), ("p99", 0.99))),
    *(_latency("gap", name, q) for name, q in (("p50", 0.5), ("p99", 0.99))),
    *(_latency("e2e", name, q) for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))),
)
MEASURES = (*LATENCIES, *SHARES, *RATES)


@dataclass(frozen=True)
class Layout:
    """The blocks: each counted phase is cut into equal ones."""

    seconds: Sequence[float]  # of each block
    places: Mapping[str, tuple[int, int, float]]  # phase: its first block, how many, its seconds

    @classmethod
    def of(cls, phases: Sequence[PhaseFigures], seen: Sequence[Observation]) -> Layout:
        """About `BLOCKS` blocks of the counted phases that have requests, none too short."""
        present = {each.phase for each in seen}
        known = [(p.name, p.end_s - p.start_s) for p in phases if p.counted and p.name in present]
        length = max(SHORTEST_S, sum(seconds for _, seconds in known) / BLOCKS)
        blocks: list[float] = []
        places: dict[str, tuple[int, int, float]] = {}
        for name, seconds in known:
            count = max(1, round(seconds / length))
            places[name] = (len(blocks), count, seconds)
            blocks += [seconds / count] * count
        return cls(blocks, places)

    def assign(self, seen: Sequence[Observation]) -> list[tuple[int, Observation]]:
        """The block of each. A phase begins with the first request that was planned in it, which
        is the same one in every run of the scenario."""
        starts: dict[str, float] = {}
        for each in seen:
            if each.first_turn or each.phase not in starts:
                starts[each.phase] = min(starts.get(each.phase, each.due_s), each.due_s)
        found = []
        for each in seen:
            if each.phase in self.places:
                first, count, seconds = self.places[each.phase]
                part = (each.due_s - starts[each.phase]) / seconds
                found.append((first + min(count - 1, max(0, int(part * count))), each))
        return found


@dataclass(frozen=True)
class Blocked:
    """One side's observations of a cut, by block."""

    layout: Layout
    seen: Sequence[tuple[int, Observation]]

    def sample(self, timed: Timed) -> Sample:
        """The values of a latency. Gaps are not in records."""
        made = Sample(len(self.layout.seconds))
        if timed != "gap":
            for block, each in self.seen:
                value = getattr(each, timed)
                if value is not None:
                    made.add(block, value)
        return made

    def mean(self, measure: Measure) -> tuple[Mean | None, int]:
        """A share or a rate, and how many requests it is of; None of none."""
        assert measure.counts is not None
        parts = [0.0] * len(self.layout.seconds)
        sizes = [0.0] * len(parts)
        count = 0
        for block, each in self.seen:
            if measure.part_of is None or measure.part_of(each):
                count += 1
                sizes[block] += 1
                parts[block] += measure.counts(each)
        of = self.layout.seconds if measure.kind == "rate" else sizes
        return (Mean.of(parts, of) if count else None), count
