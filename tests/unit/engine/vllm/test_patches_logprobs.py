"""What `patches/logprobs.py` assumes of vLLM, against the installed version, and what it does."""

from __future__ import annotations

import asyncio
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.input_processor import InputProcessor

from serving.engine.vllm.patches.logprobs import PromptLogprobs


def test_inputs_are_processed_by_this_method() -> None:
    names = list(inspect.signature(InputProcessor.process_inputs).parameters)
    assert names[1:4] == ["request_id", "prompt", "params"]
    source = inspect.getsource(AsyncLLM.add_request)
    # Of what the app has rendered; only other inputs go through `process_inputs_async`.
    assert 'if isinstance(prompt, dict) and "type" in prompt:' in source
    assert "self.input_processor.process_inputs(" in source


def params(of_each: int | None, *, n: int = 1, stream: bool = False) -> SamplingParams:
    kind = RequestOutputKind.DELTA if stream else RequestOutputKind.FINAL_ONLY
    return SamplingParams(prompt_logprobs=of_each, n=n, output_kind=kind)


def test_the_prompts_of_a_call_have_a_limit_on_their_log_probabilities() -> None:
    processor: Any = SimpleNamespace(
        process_inputs=lambda name, prompt, params: SimpleNamespace(prompt_token_ids=prompt)
    )
    counts = PromptLogprobs(100, 40)
    counts.install(processor)
    one, two, three = params(1), params(1, n=2), params(1, stream=True)
    processor.process_inputs("own", [1] * 500, two)

    async def call(*prompts: tuple[int, Any]) -> None:
        counts.begin()
        for tokens, params in prompts:
            await asyncio.create_task(added(tokens, params))

    async def added(tokens: int, params: Any) -> None:
        processor.process_inputs("r", [1] * tokens, params)

    asyncio.run(call((900, None), (900, params(None)), (50, one)))
    for prompts in (((50, one),), ((25, two),), ((20, three),)):
        asyncio.run(call(*prompts))
    with pytest.raises(VLLMValidationError, match="at most 40 are taken in a stream"):
        asyncio.run(call((21, three)))
    for prompts in (((51, one),), ((26, two),), ((25, one), (26, one))):
        with pytest.raises(VLLMValidationError, match="at most 100 are taken"):
            asyncio.run(call(*prompts))
