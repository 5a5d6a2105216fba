"""The base class of every structure in a models file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A frozen structure that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)
