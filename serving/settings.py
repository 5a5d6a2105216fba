"""Settings of the router, read once from the environment (`SERVING_*`) and then frozen."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

LOCAL_KEY = "sk-local"


class Settings(BaseSettings):
    """Every knob with its default; `docs/operations.md` lists them."""

    model_config = SettingsConfigDict(env_prefix="SERVING_", frozen=True)

    host: str = Field(default="0.0.0.0", description="address the routers serve on")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8000, description="port that all routers of a machine share"
    )
    api_keys: SecretStr = Field(
        default=SecretStr(""),
        description="comma-separated `key` or `key:account`; a key without an account may use any",
    )
    account_policy: Literal["off", "warn", "enforce"] = Field(
        default="off", description="a completion without an account: accept, warn, or refuse"
    )
    cluster_token: SecretStr = Field(
        default=SecretStr(""), description="secret between routers and engine replicas"
    )
    log_dir: str | None = Field(default=None, description="folder of JSON logs; default: stderr")
    # Room for two images of 10 MiB, which base64 makes a third longer. The link carries 64 MiB.
    max_body_bytes: Annotated[int, Field(gt=0, le=60 * 1024 * 1024)] = 32 * 1024 * 1024
    max_header_bytes: Annotated[int, Field(gt=0)] = 16 * 1024
    body_timeout_s: Annotated[float, Field(gt=0)] = 20.0
    keepalive_s: Annotated[float, Field(gt=0)] = 10.0
    hold_s: Annotated[float, Field(ge=0)] = Field(
        default=50.0, description="how long a request waits for a model that sleeps to start"
    )
    hold_stream_s: Annotated[float, Field(ge=0)] = Field(
        default=600.0, description="the same for a stream, which comments keep alive"
    )
    hold_max: Annotated[int, Field(ge=0)] = Field(
        default=1000,
        description="requests that may wait like this at one router; more are refused at once",
    )
    stuck_s: Annotated[float, Field(gt=0)] = Field(
        default=60.0,
        description="an engine that makes no step for so long, while requests wait, has to answer "
        "one of its own in half that time, or is replaced",
    )
    request_timeout_s: Annotated[float, Field(gt=0)] = 900.0
