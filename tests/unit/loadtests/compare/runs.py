"""Runs to compare, of the simulated queue."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import cache

from loadtests.compare import Run
from loadtests.compare.reading import Observation
from loadtests.measure.record import Outcome, Record
from loadtests.measure.summary import Summary
from tests.unit.loadtests.simulated import Mix, Service, poisson, serve, summary


def observed(record: Record) -> Observation:
    """As it would be read from a file."""
    ok = record.outcome is Outcome.OK
    ttft = None if record.ttft_s is None else record.ttft_s * 1000
    return Observation(
        due_s=record.due_s, first_turn=True, phase=record.phase, model=record.model,
        account=record.account, traffic=record.traffic, priority=record.priority,
        outcome=record.outcome.value, ttft=ttft,
        tpot=None if record.tpot_s is None else record.tpot_s * 1000,
        e2e=record.e2e_s * 1000 if ok else None, tokens=record.completion_tokens,
        good=ok and ttft is not None and ttft < 500, wrong=record.wrong if record.checked else None,
    )  # fmt: skip


PLAIN = Mix()


@cache
def some() -> Summary:
    """A summary to change; histograms take their time."""
    return summary(serve([1.0, 2.0], Service(), 1), 120.0)


def made(
    name: str, service: Service, seed: int, *, stimulus: int = 1, rate: float = 20,
    end_s: float = 120, mix: Mix = PLAIN, invalid: tuple[str, ...] = (),
    scenario: dict[str, object] | None = None,
) -> Run:  # fmt: skip
    """A run. `stimulus` is the scenario's seed, `seed` that of what the service does."""
    arrivals = list(poisson(lambda at: rate, rate, end_s, stimulus))
    records = serve(arrivals, service, seed, mix)
    phases = [phase.model_copy(update={"end_s": end_s, "counted": True}) for phase in some().phases]
    about = some().model_copy(update={"seed": stimulus, "invalid": list(invalid), "phases": phases})
    return Run(name, about, [observed(record) for record in records], scenario or {})


def drifting(seed: int, strength: float = 0.3, keeps_s: float = 8.0) -> Callable[[float], float]:
    """A factor that wanders over a run, as of a neighbour on the same machine: log-normal, and
    what it was `keeps_s` ago still counts for a third."""
    chance = random.Random(f"{seed} drift")
    keep = math.exp(-1 / keeps_s)
    level, levels = chance.gauss(0, strength), []
    for _ in range(4000):
        levels.append(math.exp(level))
        level = keep * level + math.sqrt(1 - keep * keep) * chance.gauss(0, strength)
    return lambda at: levels[int(at)]
