"""What one call may have of an engine at a time, with vLLM's own `AsyncLLM` and no engine."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from vllm.entrypoints.generate.beam_search import online
from vllm.exceptions import QueueOverflowError
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.async_llm import AsyncLLM

from serving.engine.vllm.patches import BEAM
from serving.engine.vllm.patches.admission import free_failed_requests
from serving.engine.vllm.patches.shares import LOGPROBS, PROMPT_LOGPROBS, Shares
from tests.unit.engine.vllm.test_admission import add, bare_llm, request

PROMPT = 3  # tokens of `request`
SEQUENCES = 8
TOKENS = 4 * PROMPT


@pytest.fixture
def llm(no_engine: None) -> Any:
    llm = bare_llm()
    scheduler = llm.vllm_config.scheduler_config
    scheduler.max_num_batched_tokens, scheduler.max_num_seqs = TOKENS, SEQUENCES
    scheduler.max_num_queued_reqs = None
    return llm


async def settle() -> None:
    await asyncio.sleep(0.03)


def states(llm: Any) -> dict[str, Any]:
    found: dict[str, Any] = llm.output_processor.request_states
    return found


def sent(llm: Any) -> list[str]:
    """The requests that the core has got and not ended."""
    return [name for name in llm.engine_core.added if name in states(llm)]


def send(llm: Any, shares: Shares, *requests: EngineCoreRequest) -> asyncio.Task[None]:
    """One call with these requests, all at once as vLLM's app adds them."""

    async def call() -> None:
        shares.begin()
        await asyncio.gather(*(add(llm, one) for one in requests))

    return asyncio.create_task(call())


def many(name: str, count: int) -> list[EngineCoreRequest]:
    return [request(f"{name}{number}") for number in range(count)]


async def test_prompts_that_wait_are_one_step_s_worth(llm: Any) -> None:
    shares = Shares(llm)
    call = send(llm, shares, *many("a", 6))
    await settle()
    assert sent(llm) == ["a0", "a1", "a2", "a3"]
    states(llm)["a0"].is_prefilling = False
    await settle()
    assert sent(llm) == ["a0", "a1", "a2", "a3"], "half of the sequences"
    del states(llm)["a0"]
    await settle()
    assert sent(llm) == ["a1", "a2", "a3", "a4"]
    for name in ("a1", "a2", "a3", "a4"):
        del states(llm)[name]
    await call
    assert sent(llm) == ["a5"]


async def test_others_are_not_held_up(llm: Any) -> None:
    shares = Shares(llm)
    calls = [send(llm, shares, *many("a", 9)), send(llm, shares, *many("b", 2))]
    await settle()
    assert {"b0", "b1"} <= set(sent(llm))
    await asyncio.create_task(add(llm, request("of-nobody")))
    assert "of-nobody" in sent(llm)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_a_prompt_longer_than_a_step_is_taken_alone(llm: Any) -> None:
    shares = Shares(llm)
    long = request("long")
    long.prompt_token_ids = [1] * (3 * TOKENS)
    call = send(llm, shares, long, request("short"))
    await settle()
    assert sent(llm) == ["long"]
    states(llm)["long"].is_prefilling = False
    await call
    assert sent(llm) == ["long", "short"]


async def test_what_is_cancelled_while_it_waits_is_not_sent(llm: Any) -> None:
    free_failed_requests(llm)
    shares = Shares(llm)
    call = send(llm, shares, *many("a", 9))
    await settle()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await settle()
    assert list(states(llm)) == sent(llm) == ["a0", "a1", "a2", "a3"]


async def test_choices_are_held_back_too(llm: Any) -> None:
    """vLLM registers them all, and sends them one after the other."""
    source = inspect.getsource(AsyncLLM.add_request)
    assert "for child_request in child_requests:\n                await self.engine_core." in source
    assert "await self.engine_core.add_request_async(" in inspect.getsource(AsyncLLM._add_request)


async def test_an_engine_that_dies_holds_nobody(llm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = Shares(llm)
    call = send(llm, shares, *many("a", 9))
    await settle()
    monkeypatch.setattr(AsyncLLM, "errored", True)
    await asyncio.wait_for(call, 2)


async def test_what_waits_counts_in_the_queue(llm: Any) -> None:
    llm.scheduler_config.max_num_queued_reqs = 6
    shares = Shares(llm)
    call = send(llm, shares, *many("a", 6))
    await settle()
    assert len(sent(llm)) == 4
    with pytest.raises(QueueOverflowError):
        await send(llm, shares, request("b"))
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


async def test_steps_of_a_beam_search_are_part_of_what_was_added(llm: Any) -> None:
    assert BEAM in inspect.getsource(online), "see is_beam_step"
    shares = Shares(llm)
    steps = many("a", 9)
    for step in steps:
        step.external_req_id = f"cmpl-1{BEAM}{step.request_id}"
    await send(llm, shares, *steps)
    assert len(sent(llm)) == 9


async def test_log_probabilities_count_for_more(llm: Any) -> None:
    shares = Shares(llm)
    prompts = [request(f"p{n}", prompt_logprobs=0) for n in range(3)]
    assert TOKENS == PROMPT_LOGPROBS * PROMPT
    call = send(llm, shares, *prompts)
    await settle()
    assert sent(llm) == ["p0"], "its prompt is a step's worth"
    for name in ("p0", "p1", "p2"):
        states(llm)[name].is_prefilling = False
        await settle()
        del states(llm)[name]
        await settle()
    await call
    call = send(llm, shares, *(request(f"s{n}", logprobs=1) for n in range(3)))
    await settle()
    for name in ("s0", "s1"):
        states(llm)[name].is_prefilling = False
    await settle()
    assert SEQUENCES // 2 == 2 * LOGPROBS
    assert sent(llm) == ["s0", "s1"], "half of the sequences"
    del states(llm)["s0"]
    await call
