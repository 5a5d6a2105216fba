"""Limits on preparing requests in helper processes, read from the environment of an engine server.

A model's `env` may say otherwise for that model.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class PrepareLimits(BaseSettings):
    """Every limit (`SERVING_PREPARE_*`) with its default; `docs/operations.md` lists them."""

    model_config = SettingsConfigDict(env_prefix="SERVING_PREPARE_", frozen=True)

    helpers: Annotated[int, Field(ge=1)] = Field(
        default=2, description="helper processes of an engine server at a time"
    )
    waiting: Annotated[int, Field(ge=1)] = Field(
        default=256, description="requests that may wait for a helper; further ones are 503"
    )
    time_s: Annotated[float, Field(gt=0)] = Field(
        default=10.0, description="seconds in which a request must be prepared"
    )
    memory_mib: Annotated[int, Field(ge=64)] = Field(
        default=1024, description="MiB that a helper may take for a request"
    )
    grammar_s: Annotated[float, Field(gt=0)] = Field(
        default=2.0,
        description="seconds of CPU in which a grammar must be checked and compiled; the engine "
        "compiles it again",
    )
