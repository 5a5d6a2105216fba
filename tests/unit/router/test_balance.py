from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from serving.router.balance import SPREAD, Pool

REPORT_DELAY_S = 0.02


@dataclass
class Replica:
    replica: str
    busy: int = 0
    adapters: set[str] = field(default_factory=set)
    up: bool = True


def pool_of(replicas: Sequence[Any], rng: random.Random) -> Pool[Any]:
    pool: Pool[Any] = Pool(rng)
    pool.set_up(replicas)
    for replica in replicas:
        for adapter in replica.adapters:
            pool.holds(replica, adapter, True)
    return pool


def choose(replicas: Sequence[Any], adapter: str | None, rng: random.Random) -> Any:
    return pool_of(replicas, rng).choose(adapter)


class View:
    """A replica as one router sees it: the router's own requests now, the others' some time ago."""

    up = True

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


def test_beside_its_copies_however_busy_that_replica_is() -> None:
    pool = pool_of([Replica("r0", busy=50), Replica("r1"), Replica("r2")], random.Random(1))
    assert pool.choose(None, beside="r0").replica == "r0"
    assert pool.choose("adapter", beside="r0").replica == "r0"
    assert pool.choose(None, frozenset({"r0"}), beside="r0").replica in {"r1", "r2"}
    assert pool.choose(None, beside="gone").replica in {"r1", "r2"}
    home = pool.choose(None, home="a").replica
    assert {pool.choose(None, home="a", beside=f"r{n}").replica for n in range(3)} == {home}


def test_all_copies_of_a_request_with_a_home_go_to_one_replica() -> None:
    """However busy it is, at every router; if it was tried, to one other."""
    replicas = [Replica(f"r{number}", busy=number) for number in range(4)]
    pools = [pool_of(replicas, random.Random(seed)) for seed in range(20)]
    homes = {pool.choose(None, frozenset(), "a").replica for pool in pools}
    (home,) = homes
    others = {pool.choose(None, frozenset(homes), "a").replica for pool in pools}
    assert len(others) == 1
    assert home not in others
    assert len({pools[0].choose(None, frozenset(), str(name)).replica for name in range(99)}) == 4


def test_many_candidates_stay_balanced_with_a_sample() -> None:
    rng = random.Random(3)
    replicas = [Replica(f"r{number}") for number in range(40)]
    pool = pool_of(replicas, rng)
    for _ in range(40 * 50):
        pool.choose(None).busy += 1
    assert max(r.busy for r in replicas) - min(r.busy for r in replicas) <= 8


def test_the_idle_holder_is_found_among_many_candidates() -> None:
    replicas = [Replica(f"r{number}") for number in range(40)]
    replicas[7].adapters.add("x")
    assert {choose(replicas, "x", random.Random(n)).replica for n in range(20)} == {"r7"}


def test_a_single_candidate_is_taken() -> None:
    only = Replica("a", 1000)
    assert choose([only], "x", random.Random(1)) is only


def test_nobody_to_choose() -> None:
    assert choose([], None, random.Random(1)) is None
    assert pool_of([Replica("a")], random.Random(1)).choose("x", frozenset({"a"})) is None


def test_excluded_replicas_are_not_chosen() -> None:
    replicas = [Replica(f"r{number}", adapters={"x"}) for number in range(40)]
    pool = pool_of(replicas, random.Random(1))
    exclude = frozenset(f"r{number}" for number in range(39))
    for adapter in (None, "x", "y"):
        assert {pool.choose(adapter, exclude).replica for _ in range(20)} == {"r39"}


def test_a_holder_that_is_not_up_is_passed_over() -> None:
    holder, other, third = Replica("a", adapters={"x"}), Replica("b"), Replica("c")
    pool = pool_of([holder, other, third], random.Random(1))
    holder.up = False
    pool.set_up([other, third])
    assert {pool.choose("x").replica for _ in range(20)} < {"b", "c"}


def test_a_dropped_adapter_has_no_holder() -> None:
    replicas = [
        Replica(f"r{number}", adapters={"x"} if number == 3 else set()) for number in range(9)
    ]
    pool = pool_of(replicas, random.Random(1))
    assert pool.choose("x").replica == "r3"
    pool.holds(replicas[3], "x", False)
    assert (
        pool.choose("x").replica
        == choose([Replica(f"r{n}") for n in range(9)], "x", random.Random(2)).replica
    )


def test_a_replica_that_leaves_moves_only_its_own_adapters() -> None:
    replicas = [Replica(f"r{number}") for number in range(8)]
    pool = pool_of(replicas, random.Random(1))
    before = {f"adapter-{n}": pool.choose(f"adapter-{n}").replica for n in range(200)}
    pool.set_up(replicas[1:])
    moved = {a for a, home in before.items() if pool.choose(a).replica != home}
    assert moved == {adapter for adapter, home in before.items() if home == "r0"}
    assert 5 < len(moved) < 60
