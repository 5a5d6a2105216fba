"""What every structure of a models file has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """Frozen, and strict about names: a field that is unknown is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)
