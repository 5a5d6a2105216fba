"""How requests wait in an engine server, read from its environment.

A model's `env` may say otherwise for that model.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.engine.fair_queue import Flow
from serving.wire.messages import Standing

Positive = Annotated[float, Field(gt=0)]


class QueueLimits(BaseSettings):
    """Every setting (`SERVING_QUEUE_*`) with its default; `docs/operations.md` lists them."""

    model_config = SettingsConfigDict(env_prefix="SERVING_QUEUE_", frozen=True)

    order: Literal["fair", "fcfs"] = Field(
        default="fair",
        description="whose turn is next: fair between accounts by tokens, or first come first "
        "served",
    )
    wait_s: Positive = Field(
        default=300.0, description="how long a request waits for its turn before it is 503"
    )
    batch_wait_s: Positive = Field(default=800.0, description="the same for a batch request")
    bytes: Annotated[int, Field(gt=0)] = Field(
        default=1024**3, description="bodies, prompts and images that wait; more are 503"
    )
    reserve: Annotated[float, Field(ge=0, le=0.5)] = Field(
        default=0.125,
        description="part of the sequences that run at a time (max_num_seqs) that is kept for "
        "accounts that run fewer, while more than one account calls",
    )
    step_ms: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="what a step may take, in milliseconds: while more than one account calls, "
        "those that run many sequences get no more of them while steps take longer; 0: any time",
    )
    prefill: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="tokens of a prompt that a step runs at most, and of all prompts of an account "
        "while several call, where the model allows it; 0: as many as fit in a step",
    )
    prompt_weight: Positive = Field(
        default=1.0, description="what a token of a prompt counts for between accounts"
    )
    completion_weight: Positive = Field(default=2.0, description="the same of a completion")

    def flow_of(self, standing: Standing) -> Flow:
        """Whose turn a request takes: its account's, or in order of arrival everybody's."""
        return Flow(standing.owner if self.order == "fair" else "", standing.batch)
