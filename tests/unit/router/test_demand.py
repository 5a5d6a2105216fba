"""When a model counts as in use."""

from __future__ import annotations

import asyncio

import pytest

from serving.catalogue.spec import EngineSpec
from serving.router.demand import Demand


def spec(name: str, **fields: object) -> EngineSpec:
    return EngineSpec.model_validate({"id": name, "weights": "w", "context": 100} | fields)


SLEEPER = spec("sleeper", min_replicas=0, idle_s=0.05)
# For what must not have been idle in between, whatever the machine does meanwhile.
DOZER = spec("sleeper", min_replicas=0, idle_s=1.0)
AWAKE = spec("awake")


class Wants:
    """What was asked for, in order."""

    def __init__(self) -> None:
        self.said: list[tuple[str, bool]] = []

    def __call__(self, model: str, wanted: bool) -> None:
        self.said.append((model, wanted))


@pytest.fixture
def wants() -> Wants:
    return Wants()


@pytest.fixture
def demand(wants: Wants) -> Demand:
    demand = Demand(wants)
    demand.update([SLEEPER, AWAKE])
    return demand


async def test_only_a_model_that_may_sleep_is_wanted(demand: Demand, wants: Wants) -> None:
    with demand.using("awake"), demand.using("sleeper"):
        assert wants.said == [("sleeper", True)]
    assert demand.sleeps("sleeper")
    assert not demand.sleeps("awake")


async def test_it_is_wanted_once_and_until_it_was_idle_for_long(
    demand: Demand, wants: Wants
) -> None:
    with demand.using("sleeper"):
        with demand.using("sleeper"):
            pass
        await asyncio.sleep(0.1)  # one still uses it
    assert wants.said == [("sleeper", True)]
    await asyncio.sleep(0.1)
    assert wants.said == [("sleeper", True), ("sleeper", False)]
    with demand.using("sleeper"):
        assert wants.said[-1] == ("sleeper", True)


async def test_a_pause_is_not_yet_idle(demand: Demand, wants: Wants) -> None:
    demand.update([DOZER])
    for _ in range(3):
        with demand.using("sleeper"):
            pass
        await asyncio.sleep(0.02)
    assert wants.said == [("sleeper", True)]


async def test_a_model_that_is_removed_is_wanted_no_longer(demand: Demand, wants: Wants) -> None:
    with demand.using("sleeper"):
        demand.update([AWAKE])
        assert wants.said == [("sleeper", True), ("sleeper", False)]
    await asyncio.sleep(0.1)
    assert len(wants.said) == 2


async def test_close_gives_everything_back(demand: Demand, wants: Wants) -> None:
    with demand.using("sleeper"):
        demand.close()
    assert wants.said[-1] == ("sleeper", False)


async def test_a_model_that_may_sleep_from_now_on_is_wanted_by_those_who_use_it(
    demand: Demand, wants: Wants
) -> None:
    with demand.using("awake"):
        demand.update([SLEEPER, spec("awake", min_replicas=0, idle_s=0.05)])
        assert wants.said == [("awake", True)]
        demand.update([SLEEPER])
        demand.update([SLEEPER, spec("awake", min_replicas=0, idle_s=0.05)])
        assert wants.said == [("awake", True), ("awake", False), ("awake", True)]
    await asyncio.sleep(0.1)
    assert wants.said[-1] == ("awake", False)
