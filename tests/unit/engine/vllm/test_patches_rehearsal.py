"""What `patches_rehearsal.py` assumes of vLLM, against the installed version."""

from __future__ import annotations

import asyncio
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.renderers import BaseRenderer
from vllm.renderers.online_renderer import OnlineRenderer
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.input_processor import InputProcessor
from vllm.v1.structured_output import StructuredOutputManager

from serving.engine.vllm.patches_rehearsal import (
    RehearsalEngine,
    Rehearsed,
    constraint,
    constraint_fields,
    record_renders,
)


class Renderer:
    """The two methods of a renderer that are replaced."""

    def __init__(self) -> None:
        self.calls = 0

    async def render_chat_async(self, messages: Any, **_: Any) -> Any:
        self.calls += 1
        return messages, [{"type": "token", "prompt_token_ids": [1, 2]}]

    async def render_cmpl_async(self, prompts: Any, **_: Any) -> Any:
        self.calls += 1
        return [{"type": "token", "prompt_token_ids": [len(prompts)]}]


def test_the_app_renders_through_the_two_methods() -> None:
    chat = inspect.getsource(OnlineRenderer.preprocess_chat)
    completion = inspect.getsource(OnlineRenderer.preprocess_cmpl)
    assert "(conversation,), (engine_input,) = await renderer.render_chat_async(" in chat
    assert "return await renderer.render_cmpl_async(" in completion
    for name in ("render_chat_async", "render_cmpl_async"):
        assert inspect.iscoroutinefunction(getattr(BaseRenderer, name))


def test_the_app_makes_all_requests_of_a_call_before_it_waits_for_one() -> None:
    for serving, name in (
        (OpenAIServingChat, "_create_chat_completion"),
        (OpenAIServingCompletion, "_create_completion"),
    ):
        source = inspect.getsource(getattr(serving, name))
        assert "self.engine_client.generate(\n" in source
        assert source.index("self.engine_client.generate(") < source.index("request.stream:\n", 400)


def test_the_engine_without_a_core_has_the_interface_of_one() -> None:
    for name in ("generate", "encode"):
        ours = list(inspect.signature(getattr(RehearsalEngine, name)).parameters)
        theirs = list(inspect.signature(getattr(AsyncLLM, name)).parameters)
        assert ours[:4] == theirs[:4], f"AsyncLLM.{name} takes {theirs} now"
    known = inspect.signature(InputProcessor.process_inputs).parameters
    assert {"supported_tasks", "lora_request", "priority"} <= known.keys()


def test_the_core_compiles_a_grammar_in_its_manager() -> None:
    source = inspect.getsource(StructuredOutputManager.grammar_init)
    assert "self._use_async_grammar_compilation" in source
    assert "self._create_grammar(request)" in source


def test_a_checked_constraint_survives_the_way() -> None:
    params = StructuredOutputsParams(choice=["a", "b"])
    params._backend, params._backend_was_auto = "xgrammar", True
    assert constraint(constraint_fields(params)) == params


def test_a_known_constraint_is_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []
    monkeypatch.setattr(
        SamplingParams, "_validate_structured_outputs", lambda self, *args: checked.append(args)
    )
    assert "self._validate_structured_outputs(" in inspect.getsource(SamplingParams.verify)
    rehearsed = Rehearsed()
    rehearsed._skip_known_constraints()
    params = SamplingParams(structured_outputs=StructuredOutputsParams(regex="a+"))
    validate = SamplingParams._validate_structured_outputs
    validate(params, None, None, None)
    assert len(checked) == 1
    known = StructuredOutputsParams(regex="a+")
    known._backend = "xgrammar"

    async def as_a_call() -> None:
        rehearsed.set(None, constraint_fields(known))
        validate(params, None, None, None)

    asyncio.run(as_a_call())
    assert len(checked) == 1
    assert params.structured_outputs == known


async def test_renders_are_recorded_and_replayed() -> None:
    recorded: list[Any] = []
    theirs: Any = Renderer()
    record_renders(theirs, lambda last, inputs: recorded.append((last, inputs)))
    await theirs.render_chat_async([[{"role": "user"}, {"role": "tool"}]])
    await theirs.render_cmpl_async(["a", "b"])
    assert recorded == [
        ([[{"role": "tool"}]], [{"type": "token", "prompt_token_ids": [1, 2]}]),
        ([], [{"type": "token", "prompt_token_ids": [2]}]),
    ]
    ours = Renderer()
    rehearsed = Rehearsed()
    rehearsed._replay_renders(ours)
    await ours.render_cmpl_async(["a"])
    assert ours.calls == 1

    async def call() -> None:
        rehearsed.set(recorded[0], None)
        assert await ours.render_chat_async([]) == recorded[0]
        assert await ours.render_cmpl_async([]) == recorded[0][1]

    await asyncio.create_task(call())
    assert ours.calls == 1


async def test_the_prompts_of_one_request_let_others_in_between() -> None:
    order: list[str] = []

    async def add(name: str) -> None:
        order.append(name)

    llm = SimpleNamespace(add_request=add)
    rehearsed = Rehearsed()
    rehearsed._add_in_turns(llm)

    async def many() -> None:
        rehearsed.set(None, None)
        await asyncio.gather(*(llm.add_request("many") for _ in range(50)))

    async def other() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        await llm.add_request("other")

    await asyncio.gather(asyncio.create_task(many()), asyncio.create_task(other()))
    assert order.index("other") < 10
    assert order.count("many") == 50
