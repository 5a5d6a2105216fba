"""What a comparison came to."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Word = Literal["better", "worse", "noise", "too few"]
# How a difference is told: as a part of A's value, or as one share minus the other.
Kind = Literal["latency", "rate", "share"]


class Line(BaseModel):
    """One measure of one cut."""

    model_config = ConfigDict(extra="forbid")

    cut: str  # "all", or "model NAME"
    measure: str
    kind: Kind
    a: float | None  # milliseconds, per second, or a share
    b: float | None
    # B against A: a part of A's value (0.1: ten per cent more); of shares b - a. The interval holds
    # for this line alone. None: without an end.
    difference: float | None
    low: float | None
    high: float | None
    p: float  # the chance of such a difference if there is none
    adjusted: float  # the same, corrected for how many lines there are
    word: Word
    why: str = ""  # of "too few", and of a difference that is too small to matter


class Comparison(BaseModel):
    """A and B."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    a: list[str]  # where they came from
    b: list[str]
    scenario: str
    confidence: float
    smallest: float
    how: str  # which statistics, and why
    forced: list[str]  # why they should not be compared, where that was forced
    differing: list[str]  # what differs beside the figures: versions, machine, address
    lines: list[Line]

    @property
    def worse(self) -> list[Line]:
        """The lines in which B is worse."""
        return [line for line in self.lines if line.word == "worse"]

    @property
    def better(self) -> list[Line]:
        """The lines in which B is better."""
        return [line for line in self.lines if line.word == "better"]
