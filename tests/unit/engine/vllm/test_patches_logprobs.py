"""What `patches/logprobs.py` assumes of vLLM, against the installed version, and what it does."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.exceptions import VLLMValidationError
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.input_processor import InputProcessor

from serving.engine.vllm.patches.logprobs import FEW, PromptLogprobs, write_in_threads


def test_a_whole_chat_waits_for_its_results_alone() -> None:
    """And for nothing of the event loop that it was called on."""
    source = inspect.getsource(OpenAIServingChat.chat_completion_full_generator)
    assert source.count("await ") == 0
    assert source.count("async for res in result_generator:") == 1
    names = list(inspect.signature(OpenAIServingChat.chat_completion_full_generator).parameters)
    assert names[1:3] == ["request", "result_generator"]
    calls = inspect.getsource(OpenAIServingChat)
    assert "return await self.chat_completion_full_generator(" in calls


def test_inputs_are_processed_by_this_method() -> None:
    names = list(inspect.signature(InputProcessor.process_inputs).parameters)
    assert names[1:4] == ["request_id", "prompt", "params"]
    source = inspect.getsource(AsyncLLM.add_request)
    # Of what the app has rendered; only other inputs go through `process_inputs_async`.
    assert 'if isinstance(prompt, dict) and "type" in prompt:' in source
    assert "self.input_processor.process_inputs(" in source


class Handler:
    """Writes answers; notes in which thread."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    async def chat_completion_full_generator(self, request: Any, results: Any, name: str) -> Any:
        self.threads.append(threading.current_thread())
        return name, [result async for result in results]


@pytest.mark.parametrize(
    ("logprobs", "top", "tokens", "beside"),
    [(False, None, 9000, False), (True, 0, 10, False), (True, 20, 10, False), (True, 1, FEW, True)],
)
async def test_many_log_probabilities_are_written_in_a_thread(
    logprobs: bool, top: int | None, tokens: int, beside: bool
) -> None:
    handler = Handler()
    app: Any = SimpleNamespace(state=SimpleNamespace(openai_serving_chat=handler))
    write_in_threads(app)
    result = SimpleNamespace(outputs=[SimpleNamespace(token_ids=[1] * tokens)])

    async def results() -> AsyncIterator[Any]:
        await asyncio.sleep(0)
        yield result

    request = SimpleNamespace(logprobs=logprobs, top_logprobs=top, logprob_token_ids=None)
    write: Any = handler.chat_completion_full_generator
    assert await write(request, results(), "a") == ("a", [result])
    (thread,) = handler.threads
    assert (thread is not threading.main_thread()) == beside


async def test_an_error_in_the_thread_is_the_callers() -> None:
    class Failing(Handler):
        async def chat_completion_full_generator(self, *_: Any) -> Any:
            raise ValueError("no")

    handler = Failing()
    app: Any = SimpleNamespace(state=SimpleNamespace(openai_serving_chat=handler))
    write_in_threads(app)

    async def results() -> AsyncIterator[Any]:
        yield SimpleNamespace(outputs=[SimpleNamespace(token_ids=[1] * FEW)])

    request = SimpleNamespace(logprobs=True, top_logprobs=5, logprob_token_ids=None)
    write: Any = handler.chat_completion_full_generator
    with pytest.raises(ValueError, match="no"):
        await write(request, results(), "a")


def test_the_prompts_of_a_call_have_a_limit_on_their_log_probabilities() -> None:
    processor: Any = SimpleNamespace(
        process_inputs=lambda name, prompt, params: SimpleNamespace(prompt_token_ids=prompt)
    )
    counts = PromptLogprobs(100)
    counts.install(processor)
    one, two = SimpleNamespace(prompt_logprobs=1), SimpleNamespace(prompt_logprobs=2)
    processor.process_inputs("own", [1] * 500, two)

    async def call(*prompts: tuple[int, Any]) -> None:
        counts.begin()
        for tokens, params in prompts:
            await asyncio.create_task(added(tokens, params))

    async def added(tokens: int, params: Any) -> None:
        processor.process_inputs("r", [1] * tokens, params)

    asyncio.run(call((900, None), (900, SimpleNamespace(prompt_logprobs=None)), (50, one)))
    asyncio.run(call((50, one)))
    for prompts in (((51, one),), ((34, two),), ((25, one), (26, one))):
        with pytest.raises(VLLMValidationError, match="at most 100 are taken"):
            asyncio.run(call(*prompts))
