"""What a call has used, from vLLM's own states of the requests that the call added.

The states are read when a call ends, however it ends: nothing is counted per token here.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from vllm.v1.engine.async_llm import AsyncLLM

from serving.engine.interface import Tally
from serving.engine.vllm import patches


class CallUsage:
    """The requests of one call: vLLM's app adds one per prompt and choice."""

    def __init__(self) -> None:
        self._states: list[Any] = []
        self._beam_steps = 0
        self._beam = ""
        # How long requests waited for their turn before the engine core got them, by their IDs.
        self.waits: dict[str, float] = {}

    def add(self, state: Any) -> None:
        if self._states and patches.is_beam_step(state):
            # Not kept, as there are thousands. Each makes one token, and its prompt continues the
            # first request's.
            self._beam_steps += 1
            self._beam = patches.beam_of(state)
        else:
            self._states.append(state)

    def fill(self, tally: Tally) -> None:
        """Set the tally's counts to what the requests have used so far."""
        prompts: dict[int, int] = {}
        cached: dict[int, int] = {}
        completion_tokens, queues_s = self._beam_steps, []
        for state in self._states:
            counts = patches.request_counts(state)
            if counts.begun:
                prompts[counts.prompt] = counts.prompt_tokens
                # The choices of one prompt: what the first run had to compute is in none's cache.
                found = cached.get(counts.prompt, counts.cached_tokens)
                cached[counts.prompt] = min(found, counts.cached_tokens)
                completion_tokens += counts.completion_tokens
                if counts.queue_s is not None:
                    waited = self.waits.get(patches.internal_id(state), 0.0)
                    queues_s.append(waited + counts.queue_s)
        tally.prompt_tokens = sum(prompts.values())
        tally.cached_tokens = sum(cached.values())
        tally.completion_tokens = completion_tokens
        tally.queue_s = min(queues_s, default=None)

    def charges(self, of: Mapping[str, int | None]) -> list[int | None]:
        """What the engine's death is charged to this call's requests with, given what it is charged
        to requests with by vLLM's own IDs (`accused.py`)."""
        if not of:
            return []
        own = {patches.internal_id(state) for state in self._states}
        beam = self._beam
        return [
            charge for name, charge in of.items() if name in own or (beam and name.startswith(beam))
        ]


class UsageWatch:
    """Counts each request that vLLM takes to the call that added it."""

    def __init__(self, llm: AsyncLLM) -> None:
        self._call: ContextVar[CallUsage | None] = ContextVar("usage", default=None)
        patches.watch_requests(llm, self._added)

    def begin(self) -> CallUsage:
        """Begin a call. Requests that the current task adds, or a task it starts, belong to it."""
        usage = CallUsage()
        self._call.set(usage)
        return usage

    def _added(self, state: Any) -> None:
        usage = self._call.get()
        if usage is not None:
            usage.add(state)
