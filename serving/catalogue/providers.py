"""Hosted providers: how routers reach one, and the built-in ones."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from serving.catalogue.base import Spec


def _usable(url: str) -> str:
    """Refuse a URL that no router could use."""
    parts = urlsplit(url)  # raises ValueError on a bad host
    try:
        port = parts.port
    except ValueError:
        raise ValueError("has a port that is none; write a number from 1 to 65535") from None
    if not parts.hostname or port == 0:
        raise ValueError("has no host; write https://HOST/PATH")
    return url


class Provider(Spec):
    """A hosted provider with an OpenAI-compatible API.

    The key comes from the routers' environment variable `api_key_env`, or from `api_key_file`, a
    file such as a mounted secret, which is read again when it changes. Times are in seconds.
    `max_concurrency` limits the requests that the whole installation runs at once; each router
    takes its share.
    """

    dialect: Literal["openai", "anthropic", "gemini"] = "openai"
    base_url: Annotated[str, Field(pattern=r"^https?://[^\s]+$"), AfterValidator(_usable)]
    api_key_env: str | None = None
    api_key_file: str | None = None
    max_concurrency: Annotated[int, Field(ge=1)] = 64
    connect_timeout_s: Annotated[float, Field(gt=0)] = 5.0
    timeout_s: Annotated[float, Field(gt=0)] = Field(
        default=120.0, description="longest silence of the provider"
    )
    max_retries: Annotated[int, Field(ge=0, le=10)] = 2
    breaker_failures: Annotated[int, Field(ge=1)] = Field(
        default=5, description="failures in a row after which nothing is sent for `breaker_s`"
    )
    breaker_s: Annotated[float, Field(gt=0)] = 15.0


# What the models of each dialect's providers can be for: Anthropic has no embeddings
# (docs.anthropic.com/en/docs/build-with-claude/embeddings).
TASKS: dict[str, tuple[str, ...]] = {
    "openai": ("generate", "embed"),
    "anthropic": ("generate",),
    "gemini": ("generate", "embed"),
}

# The built-in providers. `providers:` in a models file overrides their fields and adds others.
PROVIDERS: dict[str, dict[str, Any]] = {
    "openai": {
        "dialect": "openai",
        "base_url": "https://api.openai.com/v1",
        "api_key_env": "OPENAI_API_KEY",
    },
    "anthropic": {
        "dialect": "anthropic",
        "base_url": "https://api.anthropic.com/v1/",
        "api_key_env": "ANTHROPIC_API_KEY",
    },
    "gemini": {
        "dialect": "gemini",
        "base_url": "https://generativelanguage.googleapis.com/v1beta/openai/",
        "api_key_env": "GEMINI_API_KEY",
    },
}
