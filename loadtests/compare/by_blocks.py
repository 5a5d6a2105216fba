"""One run a side, cut into blocks of time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loadtests.compare.found import CUTS, DIMENSIONS, NONE, Found
from loadtests.compare.measures import FEWEST, MEASURES, Blocked, Layout, Measure
from loadtests.compare.reading import Observation, Run
from loadtests.statistics.difference import of_means, of_quantiles

BLOCKS_SAID = (
    "One run a side. Requests of a run wait for each other, so blocks of time are compared: "
    "{blocks} of about {seconds:.0f} s{paired}. What changes from one start of a service to the "
    "next (its machine, placement, caches) shows in no single run: for that, give several folders "
    "a side."
)
PAIRED_SAID = ", each with the block that had the same requests"
MIXED_SAID = " (One side has a single run, so runs cannot be the unit; its blocks are.)"


def by_blocks(a: Sequence[Run], b: Sequence[Run], paired: bool) -> tuple[list[Found], str]:
    layouts = [
        [(Layout.of(run.summary.phases, run.observations), run) for run in side] for side in (a, b)
    ]
    sides = [_blocked(side) for side in layouts]
    layout = sides[0].layout
    found = [_of_blocks("all", measure, sides[0], sides[1], paired) for measure in MEASURES]
    names = _frequent([each for _, each in sides[0].seen], [each for _, each in sides[1].seen])
    cuts = [_split(side, names) for side in sides]
    for cut in names:
        one, other = cuts[0].get(cut), cuts[1].get(cut)
        if one and other:
            name = f"{cut[0]} {cut[1]}"
            found += [_of_blocks(name, m, one, other, paired) for m in MEASURES if m.kind != "rate"]
    how = BLOCKS_SAID.format(
        blocks=len(layout.seconds),
        seconds=sum(layout.seconds) / max(1, len(layout.seconds)),
        paired=PAIRED_SAID if paired else "",
    )
    return found, how + (MIXED_SAID if len(a) != len(b) else "")


def _blocked(side: Sequence[tuple[Layout, Run]]) -> Blocked:
    """The blocks of all runs of a side, after each other."""
    seconds: list[float] = []
    seen: list[tuple[int, Observation]] = []
    for layout, run in side:
        seen += [(len(seconds) + block, each) for block, each in layout.assign(run.observations)]
        seconds += layout.seconds
    return Blocked(Layout(seconds, {}), seen)


def _of_blocks(name: str, measure: Measure, a: Blocked, b: Blocked, paired: bool) -> Found:
    if measure.timed is not None:
        one, other = a.sample(measure.timed), b.sample(measure.timed)
        if not (one.total and other.total):
            return Found(name, measure, None, None, None, NONE)
        values = one.quantile(measure.quantile), other.quantile(measure.quantile)
        why = _few(measure, one.total, other.total, one.sizes, other.sizes)
        difference = None if why else of_quantiles(one, other, measure.quantile, paired)
        return Found(name, measure, *values, difference, why, logs=True)
    (left, of_left), (right, of_right) = a.mean(measure), b.mean(measure)
    if left is None or right is None:
        return Found(name, measure, None, None, None, NONE)
    why = _few(measure, of_left, of_right, left.deviations, right.deviations)
    difference = None if why else of_means(left, right, paired)
    return Found(name, measure, left.value, right.value, difference, why)


def _few(
    measure: Measure, one: int, other: int, left: Sequence[float], right: Sequence[float]
) -> str:
    if not (measure.enough(one) and measure.enough(other)):
        return f"{min(one, other)} requests"
    if min(len(left), len(right)) < FEWEST:
        return f"{min(len(left), len(right))} blocks of time, {FEWEST} needed"
    return ""


Named = tuple[str, str | int]


def _cuts_of(each: Observation) -> Iterator[Named]:
    for dimension in DIMENSIONS:
        value = getattr(each, dimension)
        if value is not None:
            yield dimension, value


def _frequent(a: Sequence[Observation], b: Sequence[Observation]) -> list[Named]:
    """The cuts with most requests on both sides; a dimension with one value is no cut."""
    counts: list[dict[Named, int]] = [{}, {}]
    for side, count in zip((a, b), counts, strict=True):
        for each in side:
            for cut in _cuts_of(each):
                count[cut] = count.get(cut, 0) + 1
    both = {cut: min(counts[0][cut], counts[1][cut]) for cut in counts[0] if cut in counts[1]}
    several = [cut for cut in both if sum(other[0] == cut[0] for other in both) > 1]
    kept = sorted(several, key=lambda cut: -both[cut])[:CUTS]
    return sorted(kept, key=lambda cut: (DIMENSIONS.index(cut[0]), -both[cut]))


def _split(side: Blocked, names: Sequence[Named]) -> dict[Named, Blocked]:
    wanted = set(names)
    parts: dict[Named, list[tuple[int, Observation]]] = {}
    for block, each in side.seen:
        for cut in _cuts_of(each):
            if cut in wanted:
                parts.setdefault(cut, []).append((block, each))
    return {cut: Blocked(side.layout, seen) for cut, seen in parts.items()}
