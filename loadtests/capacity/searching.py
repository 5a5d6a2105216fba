"""The search: find the place where the service begins to miss its objectives, then be sure.

1. Double the rate from `low` until a step misses, then halve the (logarithmic) distance until the
   two rates are `resolution` apart. Single short steps: they may err, and nothing is said by them.
2. Take rates below that place until one is shown to meet the objectives, and rates above it until
   one is shown to miss them: further away each time, with fresh steps only, repeated and ever
   longer until it is sure or the rate is given up.

A chance of error of (1 - confidence) / 2 is for all claims of the kind "meets", the same for those
of "fails". The k-th rate of a side has 2**-k of it, in equal parts for each look at its steps, so
that all claims together are wrong with a chance of 1 - confidence at most. It is taken that a
service that meets its objectives at a rate meets them at lower ones.

Steps are asked for in an order that depends on nothing but their results. So a search that was
ended is resumed by replaying the steps that it has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from loadtests.capacity.evidence import crossing, excess, judge, needed
from loadtests.capacity.model import Judgement, Plan, Result, Trial
from loadtests.capacity.objective import Objective

LOOKS = (
    1.0,
    1.0,
    2.0,
    4.0,
)  # the lengths of a rate's steps, each followed by a look at all of them
CANDIDATES = 5  # rates on each side that are taken before it is given up
HALVINGS = 4  # below `low`, where that one misses already
OWN = 0.9  # of a side's chance of error: for the claim that it is there for
GIVE_UP = 1.6  # excess beyond which (or its inverse) a rate is plainly on the other side

# Runs a step: a rate, its seconds, and its number, which makes its requests other ones.
Runner = Callable[[float, float, int], Trial]


class Watcher(Protocol):
    """What shows a search while it goes on."""

    def began(self, rate: float, seconds: float, why: str) -> None:
        """A step begins."""

    def ended(self, trial: Trial, excess: float) -> None:
        """A step has ended; above 1 it missed."""

    def judged(self, rate: float, judgement: Judgement) -> None:
        """A rate is given a verdict."""


class OutOfBudget(Exception):
    """The plan's time is used."""


class ClientBound(Exception):
    """The client could not offer a rate, twice."""

    def __init__(self, rate: float) -> None:
        super().__init__(rate)
        self.rate = rate


def search(
    scenario: str, plan: Plan, runner: Runner, watcher: Watcher, done: Sequence[Trial] = ()
) -> Result:
    """Search by steps that `runner` runs; those of `done` are taken instead of running them."""
    return _Search(scenario, plan, runner, watcher, done).result()


class _Search:
    def __init__(
        self, scenario: str, plan: Plan, runner: Runner, watcher: Watcher, done: Sequence[Trial]
    ) -> None:
        self._scenario, self._plan, self._runner, self._watcher = scenario, plan, runner, watcher
        self._objectives = [Objective.parse(text) for text in plan.objectives]
        self._done = list(done)
        self._trials: list[Trial] = []
        self._meets: float | None = None
        self._fails: float | None = None
        self._bound: float | None = None
        self._estimate: float | None = None
        self._spent = 0.0

    def result(self) -> Result:
        try:
            ended = self._run()
        except OutOfBudget:
            ended = f"its {self._plan.budget_s:g} s of load were used"
        return Result(
            scenario=self._scenario, plan=self._plan, meets=self._meets, fails=self._fails,
            estimate=self._estimate, client_bound=self._bound, spent_s=self._spent, ended=ended,
            trials=self._trials,
        )  # fmt: skip

    def _run(self) -> str:
        lower, upper = self._bracket()
        while lower is not None and upper is not None and upper / lower > 1 + self._plan.resolution:
            middle = math.sqrt(lower * upper)
            try:
                lower, upper = (lower, middle) if self._misses(middle) else (middle, upper)
            except ClientBound as bound:
                upper = self._bound = bound.rate
        self._estimate = math.sqrt(lower * upper) if lower and upper else lower or upper
        assert self._estimate is not None
        # Up to where the client offers load, there may be no rate that misses.
        beyond = upper is None or upper == self._bound
        self._be_sure(lower if beyond else None, down=True)
        if not beyond:
            self._be_sure(None, down=False)
            self._estimate = self._place()
        if self._bound is not None and self._fails is None:
            return f"the client itself could not offer {self._bound:.4g}/s"
        if upper is None:
            return f"the objectives are met up to {self._plan.high:g}/s, the highest rate to try"
        if lower is None and self._meets is None:
            return "no rate was found that meets the objectives"
        sure = self._meets is not None and self._fails is not None
        return "found" if sure else "some rates could not be told; give it more time"

    # --- where it is ---

    def _bracket(self) -> tuple[float | None, float | None]:
        """A rate whose step met the objectives and the next higher one whose step did not."""
        rate, lower = self._plan.low, None
        try:
            while not self._misses(rate):
                lower = rate
                if rate >= self._plan.high:
                    return lower, None
                rate = min(2 * rate, self._plan.high)
        except ClientBound as bound:
            self._bound = bound.rate
            return lower, bound.rate
        upper = rate
        for _ in range(HALVINGS if lower is None else 0):
            rate /= 2
            if not self._misses(rate):
                return rate, upper
            upper = rate
        return lower, upper

    def _misses(self, rate: float) -> bool:
        return excess([self._step(rate, 1.0, "looking")], self._objectives) > 1

    # --- how sure that is ---

    def _place(self) -> float:
        """Where the objectives begin to be missed, as all steps up to now have it."""
        valid = [trial for trial in self._trials if not trial.invalid]
        return crossing(valid, self._objectives)

    def _be_sure(self, top: float | None, down: bool) -> None:
        """Take rates further and further from that place until one is judged as it should be.
        `top`: begin with this rate, which nothing has missed."""
        wanted: Judgement = "meets" if down else "fails"
        away = self._plan.resolution / 2 if top is None else 0.0
        for number in range(CANDIDATES):
            place = self._place() if top is None else top
            rate = place * (1 - away) if down else place * (1 + away)
            try:
                judgement = self._look(rate, number, wanted)
            except ClientBound as bound:
                self._bound = min(bound.rate, self._bound or bound.rate)
                return
            self._watcher.judged(rate, judgement)
            if judgement == "meets":
                self._meets = max(rate, self._meets or 0.0)
            elif judgement == "fails":
                self._fails = min(rate, self._fails or math.inf)
            if judgement == wanted:
                return
            away = min(2 * away or self._plan.resolution / 2, 0.5 if down else 1.0)

    def _look(self, rate: float, number: int, wanted: Judgement) -> Judgement:
        chance = (1 - self._plan.confidence) / 2 * 2.0 ** -(number + 1) / len(LOOKS)
        meets = chance * (OWN if wanted == "meets" else 1 - OWN)
        fails = chance * (OWN if wanted == "fails" else 1 - OWN)
        # A step of a slow service has few requests: it is longer, until they could be enough.
        longer = max(1.0, 1.3 * needed(self._objectives, meets) / rate / self._plan.seconds)
        longer = longer if wanted == "meets" else 1.0
        trials: list[Trial] = []
        for look, times in enumerate(LOOKS):
            trials.append(self._step(rate, times * longer, f"is it sure that this {wanted}?"))
            judgement = judge(trials, self._objectives, meets, fails)
            if judgement != "open":
                return judgement
            over = excess(trials, self._objectives)
            if look and (over > GIVE_UP if wanted == "meets" else over < 1 / GIVE_UP):
                break
        return "open"

    def _step(self, rate: float, times: float, why: str) -> Trial:
        """One valid step. Raises OutOfBudget, and ClientBound where two were invalid."""
        for _ in range(2):
            seconds = round(self._plan.seconds * times, 3)
            if self._spent + seconds > self._plan.budget_s:
                raise OutOfBudget
            self._watcher.began(rate, seconds, why)
            trial = self._next(rate, seconds)
            self._spent += seconds
            self._trials.append(trial)
            if not trial.invalid:
                self._watcher.ended(trial, excess([trial], self._objectives))
                return trial
            self._watcher.ended(trial, math.nan)
        raise ClientBound(rate)

    def _next(self, rate: float, seconds: float) -> Trial:
        number = len(self._trials)
        if number < len(self._done):
            old = self._done[number]
            if math.isclose(old.rate, rate) and math.isclose(old.seconds, seconds):
                return old
            # Another plan made them: they say nothing about what comes next.
            self._done.clear()
        return self._runner(rate, seconds, number)
