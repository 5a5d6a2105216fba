"""A step of a search against a real service: a scenario at one rate, for a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from loadtests.capacity.evidence import seen
from loadtests.capacity.model import Trial
from loadtests.capacity.objective import Objective
from loadtests.compare.reading import read_run
from loadtests.scenarios.arrivals import Closed, Constant, Gamma, Phase, Poisson
from loadtests.scenarios.model import Scenario

# Sends a scenario and leaves its summary and records in the folder.
Conduct = Callable[[Scenario, Path], None]


def at_rate(scenario: Scenario, rate: float, seconds: float, warm_s: float, seed: int) -> Scenario:
    """The traffic of a scenario at one rate: a warm-up that is not counted, then `seconds`.

    Arrivals are of the kind of the scenario's first counted phase where that has a rate; else they
    are Poisson. Raises ValueError for a closed loop, which has no rate.
    """
    counted = [phase for phase in scenario.phases if phase.counted] or list(scenario.phases)
    kind = counted[0].arrivals
    if isinstance(kind, Closed):
        raise ValueError(f"the phase {counted[0].name!r} is a closed loop, which has no rate")
    arrivals = (
        kind.model_copy(update={"rate": rate})
        if isinstance(kind, Poisson | Constant | Gamma)
        else Poisson(kind="poisson", rate=rate)
    )
    warm = Phase(
        name="warm-up", seconds=warm_s, arrivals=arrivals, counted=False,
        traffic=counted[0].traffic,
    )  # fmt: skip
    held = warm.model_copy(update={"name": "held", "seconds": seconds, "counted": True})
    return scenario.model_copy(
        update={"phases": (warm, held), "faults": (), "goals": (), "seed": seed}
    )


class Stepper:
    """Runs steps: each in a folder of its own, with requests of its own. A run ends when its last
    request has, so nothing of one step is in flight in the next."""

    def __init__(
        self, scenario: Scenario, objectives: Sequence[Objective], conduct: Conduct, folder: Path,
        warm_s: float,
    ) -> None:  # fmt: skip
        self._scenario, self._objectives = scenario, objectives
        self._conduct, self._folder, self._warm_s = conduct, folder, warm_s

    def __call__(self, rate: float, seconds: float, number: int) -> Trial:
        """Run one. Raises what `conduct` raises, and Unreadable."""
        folder = self._folder / f"step-{number + 1:03}"
        seed = self._scenario.seed + 1 + number
        self._conduct(at_rate(self._scenario, rate, seconds, self._warm_s, seed), folder)
        return seen(read_run(folder), rate, seconds, self._objectives)
