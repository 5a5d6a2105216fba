"""What every attempt at one provider shares."""

from __future__ import annotations

from dataclasses import dataclass

from openai import AsyncOpenAI

from serving.observability.logs import Log
from serving.upstream.breaker import Breaker
from serving.upstream.failures import Explainer
from serving.upstream.key import ProviderKey


@dataclass(frozen=True)
class Connection:
    """The way to one provider: its pooled HTTP client, its key, its circuit and the words in which
    its failures are told."""

    name: str
    openai: AsyncOpenAI
    key: ProviderKey
    breaker: Breaker
    explain: Explainer
    log: Log
