"""A figure of both sides, before it is judged."""

from __future__ import annotations

from dataclasses import dataclass

from loadtests.compare.measures import Measure
from loadtests.statistics.difference import Difference

CUTS = 60  # those with most requests; in each some ten values are compared
DIMENSIONS = ("model", "account", "traffic", "priority", "phase")


@dataclass(frozen=True)
class Found:
    """`why` says why there is no difference; NONE: neither side has anything of it."""

    cut: str
    measure: Measure
    a: float | None
    b: float | None
    difference: Difference | None
    why: str = ""
    logs: bool = False  # the difference is one of logarithms


NONE = "none"
