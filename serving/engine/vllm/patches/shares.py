"""How much of an engine one call may take at a time.

vLLM's scheduler serves first what came first. A call of 512 prompts, or of 128 choices, would stand
before everybody's next request with all of them: as long as it takes to run its prompts, and, when
its sequences fill the batch, until they end. So of each call at most one step's worth of prompt
tokens waits in the core, and it has half of the sequences that the engine runs at a time. The rest
counts in vLLM's queue, and is sent to the core as there is room.

Log probabilities make a step longer: a prompt's by three times and more, and each sequence's by
what its tokens' take to gather and to pass on. So such prompts and sequences count for more.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

from vllm.v1.engine.async_llm import AsyncLLM

from serving.engine.vllm.patches import BEAM

# How often it is looked whether there is room, in seconds: less than a step takes.
POLL_S = 0.002
# For how many a token counts of a prompt whose log probabilities are asked for, and a sequence with
# log probabilities (decisions.md has the figures).
PROMPT_LOGPROBS, LOGPROBS = 4, 2


class _Share:
    """One call's requests in the core, with what each counts for: tokens and sequences."""

    __slots__ = ("held", "turn")

    def __init__(self) -> None:
        self.held: dict[str, tuple[int, int]] = {}
        self.turn = asyncio.Lock()


class Shares:
    """Sends the requests of each call to the core as there is room for them.

    Args:
        llm: its requests are held back from now on. Those that are added outside of a call are not,
            nor the steps of a beam search: they follow each other, and their prompts are cached.
    """

    def __init__(self, llm: AsyncLLM) -> None:
        scheduler = llm.vllm_config.scheduler_config
        self._tokens = int(scheduler.max_num_batched_tokens)
        self._sequences = max(1, int(scheduler.max_num_seqs) // 2)
        self._states = llm.output_processor.request_states
        self._call: ContextVar[_Share | None] = ContextVar("share", default=None)
        send = llm.engine_core.add_request_async

        async def send_in_share(request: Any) -> None:
            share = self._call.get()
            if share is None or BEAM in (request.external_req_id or ""):
                await send(request)
                return
            async with share.turn:
                counted = counts(request)
                while not (self._has_room(share, *counted) or llm.errored):
                    await asyncio.sleep(POLL_S)
                await send(request)
                share.held[request.request_id] = counted

        llm.engine_core.add_request_async = send_in_share

    def begin(self) -> None:
        """Begin a call. Requests that the current task adds, or a task it starts, belong to it."""
        self._call.set(_Share())

    def _has_room(self, share: _Share, tokens: int, sequences: int) -> bool:
        """True if one more request that counts for so much fits into the call's share."""
        share.held = held = {name: n for name, n in share.held.items() if name in self._states}
        waiting = sum(held[name][0] for name in held if self._states[name].is_prefilling)
        return not held or (
            sum(each for _, each in held.values()) + sequences <= self._sequences
            and (not waiting or waiting + tokens <= self._tokens)
        )


def counts(request: Any) -> tuple[int, int]:
    """For how many tokens and sequences a request (`vllm.v1.engine.EngineCoreRequest`) counts."""
    tokens, params = len(request.prompt_token_ids or ()), request.sampling_params
    if params is None:  # it makes no text
        return tokens, 1
    return (
        tokens * (1 if params.prompt_logprobs is None else PROMPT_LOGPROBS),
        1 if params.logprobs is None else LOGPROBS,
    )
