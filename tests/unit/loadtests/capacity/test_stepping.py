from __future__ import annotations

import pytest

from loadtests.capacity.stepping import at_rate
from loadtests.scenarios.arrivals import Closed, Gamma, Phase, Ramp
from loadtests.scenarios.model import Scenario
from loadtests.scenarios.traffic import Traffic


def scenario(phase: Phase) -> Scenario:
    return Scenario(name="s", phases=(phase,), traffic=(Traffic(name="chat"),))


def test_a_step_has_a_warm_up_and_the_scenarios_kind_of_arrivals() -> None:
    bursts = Phase(name="p", seconds=5, arrivals=Gamma(kind="gamma", rate=1, cv=4))
    warm, held = at_rate(scenario(bursts), 7.5, 60, 10, seed=3).phases
    assert (warm.counted, warm.seconds, held.counted, held.seconds) == (False, 10, True, 60)
    assert warm.arrivals == held.arrivals == Gamma(kind="gamma", rate=7.5, cv=4)
    assert at_rate(scenario(bursts), 1, 60, 10, seed=3).seed == 3


def test_what_has_no_rate_of_its_own_is_poisson() -> None:
    ramp = Phase(name="p", seconds=5, arrivals=Ramp(kind="ramp", start=1, end=9))
    assert at_rate(scenario(ramp), 4, 60, 10, seed=1).phases[1].arrivals.kind == "poisson"
    loop = Phase(name="p", seconds=5, arrivals=Closed(kind="closed", concurrency=3))
    with pytest.raises(ValueError, match="closed loop"):
        at_rate(scenario(loop), 4, 60, 10, seed=1)
