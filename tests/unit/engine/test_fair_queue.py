"""The order of turns: the bound of arXiv 2401.00588 held by random loads, and each of its rules."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from serving.engine.fair_queue import MAX_FLOWS, Claim, FairQueue, Flow

A, B, C = Flow("a"), Flow("b"), Flow("c")
W_P, W_Q = 1.0, 2.0
_names = (f"r{number}" for number in itertools.count())


def claim(flow: Flow, tokens: int = 1, weight: float = 1.0, size: int = 0) -> Claim:
    return Claim(next(_names), flow, weight, tokens, size)


def add(queue: FairQueue, one: Claim) -> Claim:
    queue.arrive(one.flow)
    queue.push(one)
    return one


def take(queue: FairQueue) -> Claim:
    one = next(queue.candidates())
    queue.remove(one)
    queue.charge_prompt(one)
    return one


class Engine:
    """An engine that always runs as many claims as fit, one token of each in a step."""

    def __init__(self, queue: FairQueue, most: int) -> None:
        self.queue = queue
        self._most = most
        self._running: dict[Claim, list[int]] = {}  # tokens written, and to write
        self.service: dict[Flow, float] = defaultdict(float)
        self.largest_batch = 0

    def step(self, length: Iterator[int]) -> list[Flow]:
        """One step; returns the flows of the claims that got their turn."""
        taken = []
        while len(self._running) < self._most and self.queue:
            one = take(self.queue)
            self._running[one] = [0, next(length)]
            self.service[one.flow] += W_P * one.tokens / one.weight
            taken.append(one.flow)
        tokens = sum(one.tokens + done + 1 for one, (done, _) in self._running.items())
        self.largest_batch = max(self.largest_batch, tokens)
        for one, counts in list(self._running.items()):
            counts[0] += 1
            self.queue.charge_completion(one, counts[0])
            self.service[one.flow] += W_Q / one.weight
            if counts[0] == counts[1]:
                del self._running[one]
        return taken


WEIGHTS = st.sampled_from([0.5, 1.0, 2.0, 4.0])


@given(
    prompts=st.lists(st.integers(1, 60), min_size=1, max_size=20),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=20),
    most=st.integers(1, 8),
    weights=st.tuples(WEIGHTS, WEIGHTS, WEIGHTS),
    head_start=st.integers(0, 30),
)
def test_no_account_that_always_waits_gets_ahead_by_more_than_the_bound(
    prompts: list[int],
    lengths: list[int],
    most: int,
    weights: tuple[float, float, float],
    head_start: int,
) -> None:
    """Theorem 4.4 for any two moments: the difference in service since any of them is bounded. With
    weights, service counts divided by them, so the bound is that of the smallest weight."""
    queue = FairQueue(W_P, W_Q)
    engine = Engine(queue, most)
    prompt, length = itertools.cycle(prompts), itertools.cycle(lengths)
    of = dict(zip((A, B, C), weights, strict=True))

    def keep_waiting(*flows: Flow) -> None:
        for flow in flows:
            while sum(one.flow == flow for one in queue.all()) <= most:
                add(queue, claim(flow, next(prompt), of[flow]))

    for _ in range(head_start):  # A alone: the others get nothing for it later
        keep_waiting(A)
        engine.step(length)
    gaps = []
    for _ in range(120):
        keep_waiting(A, B, C)
        engine.step(length)
        gaps.append({f: engine.service[f] - engine.service[g] for f, g in ((A, B), (B, C))})
        gaps[-1][C] = engine.service[C] - engine.service[A]
    bound = 2 * max(W_P * max(prompts), W_Q * engine.largest_batch) / min(weights)
    for flow in (A, B, C):
        values = [gap[flow] for gap in gaps]
        assert max(values) - min(values) <= bound


@given(st.lists(st.tuples(st.sampled_from("aabc"), st.integers(1, 9)), max_size=40), st.data())
def test_what_is_in_the_queue_adds_up(arrivals: list[tuple[str, int]], data: st.DataObject) -> None:
    """Whatever comes, gets its turn or gives up: counts and bytes are those of what waits."""
    queue = FairQueue()
    there: list[Claim] = []
    for owner, size in arrivals:
        there.append(add(queue, claim(Flow(owner, size % 3 == 0), size=size)))
        match data.draw(st.sampled_from(["stay", "turn", "give up"])):
            case "turn":
                there.remove(take(queue))
            case "give up":
                gone = data.draw(st.sampled_from(there))
                queue.remove(gone)
                there.remove(gone)
        assert set(queue.all()) == set(there)
        assert all(one.waits for one in there)
        assert len(queue) == len(there)
        assert queue.size == sum(one.size for one in there)
        assert queue.waiting(batch=True) == sum(one.flow.batch for one in there)
    while queue:
        take(queue)
    assert not list(queue.candidates())


def test_a_flood_does_not_come_first() -> None:
    queue = FairQueue()
    for _ in range(500):
        add(queue, claim(A, 10))
    take(queue)
    late = add(queue, claim(B, 10))
    add(queue, claim(B, 10))
    assert take(queue) is late, "B is lifted to where A is, and A has just had a turn"
    turns = Counter(take(queue).flow for _ in range(2))
    assert turns == {A: 1, B: 1}


def test_rounds_take_one_of_each_flow_after_the_other_and_batch_last() -> None:
    queue = FairQueue()
    batch = add(queue, claim(Flow("b", batch=True)))
    first = [add(queue, claim(A)) for _ in range(3)]
    second = [add(queue, claim(B)) for _ in range(2)]
    found = list(queue.rounds())
    assert [{*found[0:2]}, {*found[2:4]}] == [{first[0], second[0]}, {first[1], second[1]}]
    assert found[4:] == [first[2], batch]


def test_of_one_account_first_comes_first() -> None:
    queue = FairQueue()
    given = [add(queue, claim(A)) for _ in range(5)]
    given.remove(gone := given[2])
    queue.remove(gone)
    assert [take(queue) for _ in range(4)] == given


def test_nobody_saves_up_turns_while_away() -> None:
    queue = FairQueue()
    add(queue, claim(B, 1))
    take(queue)
    for _ in range(100):
        add(queue, claim(A, 10))
        take(queue)
    add(queue, claim(A, 10))
    for _ in range(100):
        add(queue, claim(B, 10))
    assert Counter(take(queue).flow for _ in range(2)) == {A: 1, B: 1}


def test_who_comes_to_an_empty_queue_is_lifted_to_who_left_it_last() -> None:
    queue = FairQueue(completion_weight=1.0)
    add(queue, claim(A, 10))
    last = take(queue)
    queue.charge_completion(last, 5)
    queue.arrive(B)
    assert queue.counter(B) == queue.counter(A) == 15


def test_weights() -> None:
    queue = FairQueue()
    for _ in range(400):
        add(queue, claim(A, 10, weight=3.0))
        add(queue, claim(B, 10, weight=1.0))
    turns = Counter(take(queue).flow for _ in range(400))
    assert abs(turns[A] - 300) <= 1


def test_completions_count_and_are_charged_once() -> None:
    queue = FairQueue(prompt_weight=1.0, completion_weight=2.0)
    add(queue, claim(A, 7))
    one = take(queue)
    for written in (1, 2, 2, 5):
        queue.charge_completion(one, written)
    assert queue.counter(A) == 7 + 2 * 5


def test_batch_waits_for_all_others_and_is_fair_among_itself() -> None:
    queue = FairQueue()
    slow_a, slow_b = Flow("a", batch=True), Flow("b", batch=True)
    for flow in (slow_a, slow_a, slow_b, A, B, A):
        add(queue, claim(flow, 5))
    order = [take(queue).flow for _ in range(6)]
    assert order == [B, A, A, slow_b, slow_a, slow_a]


def test_who_leaves_a_full_queue() -> None:
    queue = FairQueue()
    first, *_, newest = [add(queue, claim(A, size=1)) for _ in range(4)]
    large = add(queue, claim(B, size=50))
    assert queue.newest_of_longest(C) is newest
    assert queue.newest_of_longest(C, by_size=True) is large
    assert queue.newest_of_longest(A) is None, "its own are the most"
    queue.remove(first)
    queue.remove(newest)
    add(queue, claim(B))
    assert queue.newest_of_longest(B) is None, "they would put each other out"
    assert FairQueue().newest_of_longest(A) is None


def test_counters_are_bounded() -> None:
    queue = FairQueue()
    waiting = add(queue, claim(A, 3))
    for number in range(3 * MAX_FLOWS):
        queue.arrive(Flow(str(number)))
    assert len(queue._counters) <= MAX_FLOWS
    assert take(queue) is waiting
