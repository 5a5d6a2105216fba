"""Numbers that are drawn: lengths in tokens, times in seconds, how many turns."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat

from loadtests.scenarios.fields import Strict


class Fixed(Strict):
    """Always the same number."""

    kind: Literal["fixed"] = "fixed"
    value: float = Field(ge=0)


class Uniform(Strict):
    """Any number from `low` to `high`, each as likely."""

    kind: Literal["uniform"]
    low: float = Field(ge=0)
    high: float = Field(ge=0)


class Lognormal(Strict):
    """Log-normal, as lengths in production mostly are: half lie below `median`.

    What is drawn below `low` or above `high` becomes that bound.
    """

    kind: Literal["lognormal"]
    median: PositiveFloat
    sigma: PositiveFloat = 1.0
    low: float = Field(default=1, ge=0)
    high: PositiveFloat | None = None


class Exponential(Strict):
    """Exponential, as times to think mostly are; what is above `high` becomes `high`."""

    kind: Literal["exponential"]
    mean: PositiveFloat
    high: PositiveFloat | None = None


class Drawn(Strict):
    """Numbers drawn from a file, one in a line, each line as likely."""

    kind: Literal["file"]
    path: str


def from_number(value: Any) -> Any:
    """Return a bare number as the fields of a `Fixed` and everything else as it is."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"kind": "fixed", "value": value}
    return value


# A bare number is a `Fixed`.
Distribution = Annotated[
    Fixed | Uniform | Lognormal | Exponential | Drawn,
    Field(discriminator="kind"),
    BeforeValidator(from_number),
]
