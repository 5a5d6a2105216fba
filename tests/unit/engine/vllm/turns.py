"""vLLM's own `AsyncLLM` without an engine, whose requests take turns."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry

from serving.engine.queue_limits import QueueLimits
from serving.engine.vllm.patches.admission import free_failed_requests
from serving.engine.vllm.patches.turns import Turns
from serving.observability.engine_metrics import QueueMetrics
from serving.wire.messages import Standing
from tests.unit.engine.vllm.test_admission import add, bare_llm, request

PROMPT = 3  # tokens of `request`
SEQUENCES, KEPT = 8, 2
TOKENS = 100


class Engine:
    """`llm` and what it takes turns by."""

    def __init__(self, sequences: int = SEQUENCES, piece: int = 0, **limits: Any) -> None:
        self.llm = llm = bare_llm()
        scheduler = llm.vllm_config.scheduler_config
        scheduler.max_num_batched_tokens, scheduler.max_num_seqs = TOKENS, sequences
        scheduler.max_num_active_seqs, scheduler.policy = None, "priority"
        scheduler.max_num_queued_reqs = None
        scheduler.long_prefill_token_threshold = piece
        free_failed_requests(llm)
        self.registry = CollectorRegistry()
        kept = QueueLimits(reserve=KEPT / SEQUENCES, **limits)
        self.turns = Turns(llm, kept, QueueMetrics(self.registry))
        self.waits: dict[str, float] = {}
        self.requests: dict[str, Any] = {}

    def send(
        self,
        owner: str,
        *names: str,
        batch: bool = False,
        size: int = 0,
        priority: int = 0,
        tokens: int = PROMPT,
    ) -> list[asyncio.Task[None]]:
        """Calls of one request each, with so long a prompt."""

        async def call(name: str) -> None:
            self.turns.begin(Standing(owner, batch=batch), size, self.waits)
            one = request(name)
            one.priority, one.prompt_token_ids = priority, [1] * tokens
            self.requests[name] = one
            await add(self.llm, one)

        return [asyncio.create_task(call(name)) for name in names]

    @property
    def states(self) -> dict[str, Any]:
        found: dict[str, Any] = self.llm.output_processor.request_states
        return found

    @property
    def sent(self) -> list[str]:
        """The requests that the core has got and not ended."""
        return [name for name in self.llm.engine_core.added if name in self.states]

    async def begin(self, *names: str) -> None:
        """The core has run these prompts: a step."""
        for name in names:
            self.states[name].is_prefilling = False
        await self.step()

    async def end(self, *names: str) -> None:
        """These end in a step."""
        for name in names:
            del self.states[name]
        await self.step()

    def write(self, name: str, tokens: int) -> None:
        """The core has written so many tokens for this one."""
        text = SimpleNamespace(num_output_tokens=lambda: tokens)
        self.turns._room._running[name].text = text

    async def step(self) -> None:
        self.llm.output_processor.update_scheduler_stats(None)
        await settle()

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def names(owner: str, count: int) -> list[str]:
    return [f"{owner}{number}" for number in range(count)]


async def stop(*calls: list[asyncio.Task[None]]) -> None:
    tasks = [task for call in calls for task in call]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
