"""A queue whose capacity is known: M/M/c."""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass, field

from loadtests.capacity.evidence import seen
from loadtests.capacity.model import Trial
from loadtests.capacity.objective import Objective
from loadtests.compare import Run
from loadtests.compare.reading import Observation
from tests.unit.loadtests.compare.runs import some


@dataclass
class Queue:
    """Requests wait for one of `servers`; their first token comes when they are taken."""

    objectives: list[Objective]
    seed: int = 0
    servers: int = 4
    service_rate: float = 10.0  # of each server
    warm_s: float = 10.0
    failing_above: float = math.inf  # rates beyond which one in ten requests fails
    client_bound: float = math.inf
    asked: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self, rate: float, seconds: float, number: int) -> Trial:
        self.asked.append((rate, seconds))
        chance = random.Random(f"{self.seed} {number}")
        free = [0.0] * self.servers
        at = 0.0
        found: list[Observation] = []
        while (at := at + chance.expovariate(rate)) < self.warm_s + seconds:
            start = max(at, heapq.heappop(free))
            end = start + chance.expovariate(self.service_rate)
            heapq.heappush(free, end)
            if at >= self.warm_s:
                failed = rate > self.failing_above and chance.random() < 0.1
                found.append(
                    Observation(
                        at, True, "steady", "m", "", "chat", None, "error" if failed else "ok",
                        None if failed else (start - at) * 1000 + 0.001, None,
                        None if failed else (end - at) * 1000, 1, True, None,
                    )
                )  # fmt: skip
        phases = [
            phase.model_copy(update={"start_s": self.warm_s, "end_s": self.warm_s + seconds})
            for phase in some().phases
        ]
        bound = ["the client lagged"] if rate > self.client_bound else []
        summary = some().model_copy(update={"phases": phases, "invalid": bound})
        return seen(Run("trial", summary, found, {}), rate, seconds, self.objectives)

    def capacity(self, limit_s: float, share: float) -> float:
        """The rate at which this share of requests waits longer (A. K. Erlang's C formula)."""
        low, high = 0.0, self.servers * self.service_rate
        for _ in range(60):
            middle = (low + high) / 2
            spare = self.servers * self.service_rate - middle
            late = self.delayed(middle) * math.exp(-spare * limit_s)
            low, high = (middle, high) if late < share else (low, middle)
        return low

    def delayed(self, rate: float) -> float:
        """The share of requests that wait at all."""
        load = rate / self.service_rate
        busy = load**self.servers / math.factorial(self.servers) / (1 - load / self.servers)
        return busy / (sum(load**n / math.factorial(n) for n in range(self.servers)) + busy)
