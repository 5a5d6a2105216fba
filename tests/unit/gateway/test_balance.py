from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field

from serving.gateway.balance import SPREAD, choose

REPORT_DELAY_S = 0.02


@dataclass
class Replica:
    replica: str
    busy: int = 0
    adapters: set[str] = field(default_factory=set)


class View:
    """A replica as one router sees it: its own requests now, the others' some time ago."""

    def __init__(self, replica: str) -> None:
        self.replica = replica
        self.adapters: set[str] = set()
        self.own = 0
        self.others = 0

    @property
    def busy(self) -> int:
        return self.own + self.others


def simulate(requests: int, seed: int) -> list[float]:
    """Busy seconds of each of two replicas behind two routers that learn of each other late."""
    rng = random.Random(seed)
    views = [[View(f"r{number}") for number in range(2)] for _ in range(2)]
    work = [0.0, 0.0]
    order = itertools.count()
    events: list[tuple[float, int, str, int, int]] = []
    for router in range(2):
        now = 0.0
        for _ in range(requests):
            now += rng.expovariate(100)
            heapq.heappush(events, (now, next(order), "arrive", router, 0))
    while events:
        now, _, what, router, replica = heapq.heappop(events)
        if what == "arrive":
            view = choose(views[router], None, rng)
            replica = views[router].index(view)
            seconds = rng.choice((0.01, 0.05, 0.2, 1.0))
            work[replica] += seconds
            view.own += 1
            heapq.heappush(events, (now + seconds, next(order), "end", router, replica))
        elif what == "end":
            views[router][replica].own -= 1
        if what == "report":
            for reader in range(2):
                views[reader][replica].others = views[1 - reader][replica].own
        else:
            heapq.heappush(events, (now + REPORT_DELAY_S, next(order), "report", 0, replica))
    return work


def test_two_routers_with_late_news_keep_two_replicas_balanced() -> None:
    for seed in range(5):
        less, more = sorted(simulate(400, seed))
        assert more / less < 1.15, f"seed {seed}"


def test_the_least_busy_is_taken() -> None:
    replicas = [Replica("a", 3), Replica("b", 1), Replica("c", 2)]
    assert choose(replicas, None, random.Random(1)).replica == "b"


def test_ties_are_broken_at_random() -> None:
    replicas = [Replica("a"), Replica("b")]
    rng = random.Random(1)
    assert {choose(replicas, None, rng).replica for _ in range(50)} == {"a", "b"}


def test_an_adapter_goes_where_it_is_held() -> None:
    replicas = [Replica("a", 0), Replica("b", SPREAD, {"x"})]
    assert choose(replicas, "x", random.Random(1)).replica == "b"
    assert choose(replicas, "y", random.Random(1)) is not None


def test_an_adapter_spreads_when_its_holder_is_too_busy() -> None:
    replicas = [Replica("a", 0), Replica("b", SPREAD + 1, {"x"})]
    assert choose(replicas, "x", random.Random(1)).replica == "a"


def test_the_least_busy_holder_is_taken() -> None:
    replicas = [Replica("a", 0), Replica("b", 3, {"x"}), Replica("c", 2, {"x"})]
    assert choose(replicas, "x", random.Random(1)).replica == "c"


def test_all_routers_start_an_adapter_on_the_same_replica() -> None:
    names = [f"r{number}" for number in range(8)]
    homes = set()
    for seed in range(20):
        rng = random.Random(seed)
        shuffled = [Replica(name, rng.randrange(SPREAD)) for name in rng.sample(names, 8)]
        homes.add(choose(shuffled, "x", rng).replica)
    assert len(homes) == 1


def test_adapters_have_different_homes() -> None:
    replicas = [Replica(f"r{number}") for number in range(4)]
    homes = {choose(replicas, f"adapter-{n}", random.Random(1)).replica for n in range(50)}
    assert len(homes) == 4


def test_many_candidates_stay_balanced_with_a_sample() -> None:
    rng = random.Random(3)
    replicas = [Replica(f"r{number}") for number in range(40)]
    for _ in range(40 * 50):
        choose(replicas, None, rng).busy += 1
    assert max(r.busy for r in replicas) - min(r.busy for r in replicas) <= 8


def test_the_idle_holder_is_found_among_many_candidates() -> None:
    replicas = [Replica(f"r{number}") for number in range(40)]
    replicas[7].adapters.add("x")
    assert {choose(replicas, "x", random.Random(n)).replica for n in range(20)} == {"r7"}


def test_a_single_candidate_is_taken() -> None:
    only = Replica("a", 1000)
    assert choose([only], "x", random.Random(1)) is only
