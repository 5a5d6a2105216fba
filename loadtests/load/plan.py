"""The requests of a scenario, computed from its seed before the run.

The schedule (when a session begins, of which traffic, how many turns) is drawn in one sequence that
every process goes through; it takes a microsecond or two for each session. What a session sends is
drawn from a seed of its own, by the process that sends it. So the requests are the same however
many processes there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import count
from random import Random

from loadtests.load.arrivals import times
from loadtests.load.draw import Weighted
from loadtests.load.planned import PhasePlan, Turns
from loadtests.load.seeds import numbered, seed_of
from loadtests.load.traces import Row, rows
from loadtests.load.traffic import Slot, Source
from loadtests.scenarios.arrivals import Closed, Phase, Trace
from loadtests.scenarios.model import Scenario

# Between the first numbers of two phases.
PHASE_STRIDE = 10**9


def plans(
    scenario: Scenario, keys: Mapping[str, str], shard: int = 0, shards: int = 1
) -> list[PhasePlan]:
    """Return what one of `shards` processes sends, phase by phase.

    `keys` is the environment that API keys are read from. A session is made when its iterator is
    asked for it, which takes 15 to 30 microseconds (an image of 224 by 224: a millisecond), so that
    a run of hours needs no more memory than one of seconds; who sends asks a little ahead of time.
    Raises ScenarioError for a key or a file that is not there; an iterator raises it for a line of
    a trace that cannot be read.
    """
    made = sources(scenario, keys)
    found = []
    start = 0.0
    for number, phase in enumerate(scenario.phases):
        sessions = _sessions(scenario, number, made, shard, shards)
        concurrency = None
        if isinstance(phase.arrivals, Closed):
            whole, rest = divmod(phase.arrivals.concurrency, shards)
            concurrency = whole + (shard < rest)
        if concurrency == 0:
            sessions = iter(())
        found.append(
            PhasePlan(
                name=phase.name,
                start_s=start,
                end_s=start + phase.seconds,
                counted=phase.counted,
                sessions=sessions,
                concurrency=concurrency,
            )
        )
        start += phase.seconds
    return found


def sources(scenario: Scenario, keys: Mapping[str, str]) -> dict[str, Source]:
    """Return what makes the sessions of each traffic, by its name."""
    return {each.name: Source(scenario, each, keys) for each in scenario.traffic}


def schedule(
    scenario: Scenario, number: int, made: Mapping[str, Source]
) -> Iterator[tuple[Source, Slot]]:
    """Yield the sessions of the `number`-th phase, of all processes, in their order.

    A closed loop has no end.
    """
    phase = scenario.phases[number]
    start = sum(each.seconds for each in scenario.phases[:number])
    weights = {each.name: each.weight for each in scenario.traffic}
    names = phase.traffic or tuple(weights)
    choice = Weighted([made[name] for name in names], [weights[name] for name in names])
    rng = Random(seed_of(scenario.seed, number, "schedule"))
    seeds = seed_of(scenario.seed, number, "sessions")
    # Each phase goes on elsewhere in the files: a warm-up must not be what is measured later.
    lines = {name: seed_of(scenario.seed, number, name) if number else 0 for name in names}
    sent: Counter[str] = Counter(lines)
    index = PHASE_STRIDE * number
    for session, (at, row) in enumerate(_arrivals(scenario, phase, number)):
        source = choice.draw(rng)
        turns = source.turns(rng)
        yield (
            source,
            Slot(
                phase=phase.name,
                session=PHASE_STRIDE * number + session,
                index=index,
                seed=numbered(seeds, session),
                at_s=None if at is None else start + at,
                turns=turns,
                file_line=sent[source.name],
                row=row,
            ),
        )
        index += turns
        sent[source.name] += turns


def _arrivals(
    scenario: Scenario, phase: Phase, number: int
) -> Iterator[tuple[float | None, Row | None]]:
    arrivals = phase.arrivals
    if isinstance(arrivals, Closed):
        return ((None, None) for _ in count())
    if isinstance(arrivals, Trace):
        return ((row.at_s, row) for row in rows(arrivals, phase.seconds))
    rng = Random(seed_of(scenario.seed, number, "arrivals"))
    return ((at, None) for at in times(arrivals, phase.seconds, rng))


def _sessions(
    scenario: Scenario, number: int, made: Mapping[str, Source], shard: int, shards: int
) -> Iterator[Turns]:
    first = PHASE_STRIDE * number
    for source, slot in schedule(scenario, number, made):
        if (slot.session - first) % shards == shard:
            yield source.session(slot)
