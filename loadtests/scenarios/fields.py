"""What all parts of a scenario are made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Strict(BaseModel):
    """Refuses fields that it does not know, and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def from_percent(value: Any) -> Any:
    """Return "20%" as 0.2 and everything else as it is."""
    if isinstance(value, str) and value.endswith("%"):
        try:
            return float(value[:-1]) / 100
        except ValueError:
            return value
    return value


Part = Annotated[float, BeforeValidator(from_percent)]  # of 1; "20%" is 0.2
