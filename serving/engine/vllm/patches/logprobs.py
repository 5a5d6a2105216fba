"""What is replaced of vLLM where answers with log probabilities would stand in others' way.

`tests/unit/engine/vllm/test_patches_logprobs.py` holds each assumption against the installed
version.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from typing import Any

from fastapi import FastAPI
from vllm.exceptions import VLLMValidationError
from vllm.v1.engine.input_processor import InputProcessor

# So many log probabilities are written on the event loop in some 20 ms.
FEW = 1000
# Answers that are written at a time. More would only share the interpreter with the event loop.
TOGETHER = 2


def write_in_threads(app: FastAPI) -> None:
    """Write a whole chat answer that has many log probabilities in a thread.

    vLLM makes a pydantic object of each, and a list of its bytes: 20 µs each on the event loop,
    0.4 s for 900 tokens with 20 of them. In a thread the event loop has its turns in between.
    """
    handler = getattr(app.state, "openai_serving_chat", None)
    if handler is None:
        return
    write = handler.chat_completion_full_generator
    threads = ThreadPoolExecutor(TOGETHER, thread_name_prefix="logprobs")

    async def collect_and_write(request: Any, results: Any, *args: Any, **kwargs: Any) -> Any:
        if not request.logprobs:
            return await write(request, results, *args, **kwargs)
        last = None
        async for result in results:
            last = result
        once = write(request, _once(last), *args, **kwargs)
        if last is None or _logprobs(last, request) <= FEW:
            return await once
        # All that it waits for is there: a loop of its own is enough.
        return await asyncio.get_running_loop().run_in_executor(threads, partial(asyncio.run, once))

    handler.chat_completion_full_generator = collect_and_write


async def _once(result: Any) -> AsyncIterator[Any]:
    if result is not None:
        yield result


def _logprobs(result: Any, request: Any) -> int:
    tokens = sum(len(output.token_ids) for output in result.outputs)
    of_each = max(request.top_logprobs or 0, len(request.logprob_token_ids or ()))
    return int(tokens * (1 + of_each))


class PromptLogprobs:
    """Refuses calls whose prompts would have more than `most` log probabilities together.

    A prompt's come in one step, and vLLM makes text and objects of all of them on the event loop.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._so_far: ContextVar[list[int] | None] = ContextVar("prompt_logprobs", default=None)

    def begin(self) -> None:
        """A call begins, which the current task, and those it starts, work on."""
        self._so_far.set([0])

    def install(self, processor: InputProcessor) -> None:
        """Have vLLM count them, in this process."""
        process = processor.process_inputs

        def process_and_count(name: str, prompt: Any, params: Any, *more: Any, **named: Any) -> Any:
            request = process(name, prompt, params, *more, **named)
            of_each = getattr(params, "prompt_logprobs", None)
            if of_each is not None and request.prompt_token_ids is not None:
                self._count(len(request.prompt_token_ids), of_each)
            return request

        processor.process_inputs = process_and_count

    def _count(self, tokens: int, of_each: int) -> None:
        so_far = self._so_far.get()
        if so_far is None:
            return  # a request of ours
        so_far[0] += tokens * (1 + of_each)
        if so_far[0] > self._most:
            raise VLLMValidationError(
                f"the prompts' tokens, with {of_each} log probabilities of each and its own, have "
                f"more than {self._most} of them; at most {self._most} are taken",
                parameter="prompt_logprobs",
            )
