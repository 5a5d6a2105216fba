"""What a search is told, what each of its steps found, and what it came to."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Figures(BaseModel):
    """Strict, as summaries are."""

    model_config = ConfigDict(extra="forbid")


class Plan(Figures):
    """A search."""

    objectives: list[str]
    low: float  # where it begins, in sessions that begin per second
    high: float  # it goes no further
    confidence: float = 0.95
    resolution: float = 0.05  # how near the rates are that it stops at
    seconds: float = 30.0  # of a step, without its warm-up
    budget_s: float = 3600.0  # of load, all steps together


class Counts(Figures):
    """What one step saw of one objective, in blocks of time."""

    sizes: list[int]
    bad: list[int]
    # How many dependent requests are worth one independent one: at least 1.
    dependence: float
    # The percentile of a latency with its interval of 95%; a share. None: it never came.
    value: float | None
    value_low: float | None
    value_high: float | None


class Trial(Figures):
    """One step: a rate, held for a time."""

    rate: float
    seconds: float
    invalid: list[str]  # why it is no evidence: the client could not offer it
    achieved_rate: float
    counts: list[Counts]  # of each objective


Judgement = Literal["meets", "fails", "open"]


class Result(Figures):
    """The highest rate lies between `meets` and `fails`, with the plan's confidence."""

    version: Literal[1] = 1
    scenario: str
    plan: Plan
    meets: float | None  # it meets the objectives here; None: nowhere that was tried
    fails: float | None  # it does not, here; None: nowhere that was tried
    estimate: float | None  # the likeliest place between them
    client_bound: float | None  # the client itself could not offer this rate
    spent_s: float
    ended: str  # why the search ended
    trials: list[Trial]
