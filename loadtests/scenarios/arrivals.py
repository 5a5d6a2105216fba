"""When sessions begin: phases, and what they arrive by. Times are in seconds, rates per second."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from loadtests.scenarios.fields import Strict


class Poisson(Strict):
    """Independent callers: gaps are exponential."""

    kind: Literal["poisson"]
    rate: PositiveFloat = Field(description="sessions that begin in a second")


class Constant(Strict):
    """Equal gaps."""

    kind: Literal["constant"]
    rate: PositiveFloat


class Gamma(Strict):
    """Bursts: gaps are gamma distributed with this coefficient of variation (1 is Poisson)."""

    kind: Literal["gamma"]
    rate: PositiveFloat
    cv: PositiveFloat = 3.0


class Ramp(Strict):
    """A Poisson rate that grows evenly from `start` to `end` over the phase."""

    kind: Literal["ramp"]
    start: float = Field(ge=0)
    end: float = Field(ge=0)


class Step(Strict):
    """Poisson rates one after the other, each for an equal part of the phase."""

    kind: Literal["step"]
    rates: tuple[float, ...] = Field(min_length=1)


class Trace(Strict):
    """Arrivals and lengths of a published trace file, as it is.

    `speed` divides its times: 2 sends it twice as fast. Prompt and output lengths are the trace's
    and replace those of the traffic; Mooncake's hash IDs become shared prefixes.
    """

    kind: Literal["trace"]
    format: Literal["mooncake", "burstgpt", "azure"]
    path: str
    speed: PositiveFloat = 1.0
    limit: PositiveInt | None = Field(default=None, description="use only so many of its requests")


class Closed(Strict):
    """A closed loop: so many sessions at a time, the next begins when one ends.

    Its latencies are from the moment of sending: a slow server is then asked less often and looks
    better than it is. Reports label it as such.
    """

    kind: Literal["closed"]
    concurrency: PositiveInt


Arrivals = Annotated[
    Poisson | Constant | Gamma | Ramp | Step | Trace | Closed, Field(discriminator="kind")
]


class Phase(Strict):
    """A part of the run with one kind of arrivals. Phases follow each other without a pause."""

    name: str
    seconds: PositiveFloat
    arrivals: Arrivals
    counted: bool = Field(default=True, description="false: warm-up, left out of the totals")
    traffic: tuple[str, ...] | None = Field(
        default=None, description="names of the traffic that is sent in it [default: all]"
    )
