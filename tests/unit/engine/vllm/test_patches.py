"""What `patches/` assumes of vLLM's engine, against the installed version.

A test here that fails says what vLLM has changed and which patch to look at.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import vllm.envs as envs
from vllm.entrypoints.generate.beam_search import online as beam_search
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.core import kv_cache_utils
from vllm.v1.engine import EngineCoreEvent, EngineCoreEventType, EngineCoreOutput, FinishReason
from vllm.v1.engine import EngineCoreRequest as CoreRequest
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.output_processor import OutputProcessor, RequestOutputCollector
from vllm.v1.engine.parallel_sampling import ParentRequest
from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.stats import IterationStats, SchedulerStats

from serving.engine.interface import Tally
from serving.engine.vllm import patches
from serving.engine.vllm.usage import CallUsage
from tests.unit.engine.vllm.sources import parameters, source


def test_the_environment_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PORT", "1111")
    patches.keep_environment()
    try:
        monkeypatch.setenv("VLLM_PORT", "2222")
        kept = envs.VLLM_PORT
    finally:
        envs.disable_envs_cache()
    assert kept == 1111, "enable_envs_cache keeps nothing any more: see keep_environment"


def test_the_interface_of_a_stat_logger() -> None:
    ours, theirs = parameters(patches.LatestStats.record), parameters(StatLoggerBase.record)
    assert ours == theirs, f"StatLoggerBase.record takes {theirs} now: see LatestStats"
    stats = patches.LatestStats()
    stats.record(SchedulerStats(num_running_reqs=3, num_waiting_reqs=2), None)
    stats.record(None, None)
    assert (stats.running, stats.waiting) == (3, 2)


def test_a_step_that_comes_to_nothing_does_not_count() -> None:
    """Else an engine that can place none of its requests would never have to prove itself."""
    stats, outputs = patches.LatestStats(), IterationStats()
    stats.record(SchedulerStats(), outputs)
    assert stats.steps == 1
    for _ in range(3):
        stats.record(SchedulerStats(num_waiting_reqs=2), None)
    assert stats.steps == 1
    # A long prompt in pieces has no output.
    stats.record(SchedulerStats(num_running_reqs=1), None)
    assert stats.steps == 2
    handler = inspect.getsource(AsyncLLM._run_output_handler)
    assert "IterationStats() if (log_stats and num_outputs) else None" in handler, "see LatestStats"


def test_what_the_engine_calls_of_async_llm() -> None:
    taken = parameters(AsyncLLM.add_request)
    assert taken[1:4] == ["request_id", "prompt", "params"], "add_request: see VllmEngine._run"
    assert "lora_request" in taken, "add_request takes its adapter otherwise: see VllmEngine._run"
    assert parameters(AsyncLLM.abort)[1:] == ["request_id", "internal"], "see VllmEngine._abort"
    assert isinstance(AsyncLLM.errored, property), "AsyncLLM.errored: see VllmEngine.check"


def requests(kind: RequestOutputKind, n: int) -> Iterator[tuple[CoreRequest, Any, int]]:
    """One request, or one for each choice of a request with n > 1, with their parent and number."""
    request = CoreRequest(
        request_id="r",
        external_req_id="outside",
        prompt_token_ids=[1, 2, 3],
        mm_features=None,
        sampling_params=SamplingParams(max_tokens=9, n=n, output_kind=kind),
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
    )
    parent = ParentRequest(request) if n > 1 else None
    for index in range(n):
        # As vLLM does: the last is the request itself.
        child = request if index == n - 1 else copy.copy(request)
        if parent is not None:
            child.request_id, child.sampling_params = parent.get_child_info(index)
        yield child, parent, index


class Engine:
    """vLLM's output processor with one request, or one choice each of a request with n > 1."""

    def __init__(self, kind: RequestOutputKind, n: int = 1) -> None:
        self.output_processor = OutputProcessor(None, log_stats=True)
        self.states: list[Any] = []
        patches.watch_requests(self, self.states.append)  # type: ignore[arg-type]
        self.collector = RequestOutputCollector(kind, "r")
        self.put: list[Any] = []
        patches.take_outputs(self.collector, self.put.append)
        for request, parent, index in requests(kind, n):
            self.output_processor.add_request(request, None, parent, index, self.collector)

    @property
    def counts(self) -> list[tuple[bool, int, int]]:
        found = map(patches.request_counts, self.states)
        return [(one.begun, one.prompt_tokens, one.completion_tokens) for one in found]

    def step(self, state: Any, tokens: int, reason: FinishReason | None = None) -> None:
        events = [
            EngineCoreEvent(EngineCoreEventType.QUEUED, 10.0),
            EngineCoreEvent(EngineCoreEventType.SCHEDULED, 10.5),
        ]
        output = EngineCoreOutput(
            request_id=state.request_id,
            new_token_ids=[7] * tokens,
            finish_reason=reason,
            events=events if state.is_prefilling else None,
        )
        self.output_processor.process_outputs([output], 11.0, IterationStats())


@pytest.mark.parametrize("n", [1, 3])
def test_each_request_is_salted_once(n: int) -> None:
    processor = OutputProcessor(None, log_stats=True)
    patches.salt_requests(
        SimpleNamespace(output_processor=processor),  # type: ignore[arg-type]
        lambda own: f"<{own}>",
    )
    added = list(requests(STREAMED, n))
    for request, parent, index in added:
        collector = RequestOutputCollector(STREAMED, "r")
        processor.add_request(request, None, parent, index, collector)
    assert [request.cache_salt for request, _, _ in added] == ["<None>"] * n


def test_all_requests_are_registered_before_they_leave() -> None:
    """What `salt_requests` goes by: no request goes to the core but after `add_request` of the
    output processor, as the same object."""
    for method in (AsyncLLM.add_request, AsyncLLM._add_request):
        text = source(method)
        if "add_request_async(" in text:
            registered = text.index("self.output_processor.add_request(")
            assert registered < text.index("self.engine_core.add_request_async(")
    senders = [
        name
        for name, method in vars(AsyncLLM).items()
        if inspect.isfunction(method) and "add_request_async(" in source(method)
    ]
    # The last one sends a request that is to be refused, and runs nothing.
    known = ["add_request", "_add_request", "notify_kv_transfer_request_rejected"]
    assert senders == known, "see salt_requests"


def test_the_salt_is_part_of_the_cache_key() -> None:
    def keys(salt: str | None, start: int) -> Any:
        request = SimpleNamespace(
            cache_salt=salt, lora_request=None, mm_features=[], prompt_embeds=None
        )
        return kv_cache_utils.generate_block_hash_extra_keys(request, start, start + 16, 0)[0]

    assert keys("a", 0) != keys("b", 0) != keys(None, 0), "see salt_requests"
    assert keys("a", 16) is None, "the first block's key is in all that follow"


STREAMED, WHOLE = RequestOutputKind.DELTA, RequestOutputKind.FINAL_ONLY


def test_outputs_come_where_the_collector_would_put_them() -> None:
    engine = Engine(STREAMED)
    (state,) = engine.states
    engine.step(state, 1)
    engine.step(state, 2, FinishReason.LENGTH)
    said = [(len(out.outputs[0].token_ids), out.outputs[0].finish_reason) for out in engine.put]
    assert said == [(1, None), (2, "length")], "the shape of outputs has changed: see Outputs.put"
    assert [out.finished for out in engine.put] == [False, True]


def test_what_the_collector_had_before_is_not_lost() -> None:
    collector = RequestOutputCollector(STREAMED, "r")
    put: list[Any] = []
    waiting = Exception("any")
    collector.put(waiting)
    patches.take_outputs(collector, put.append)
    assert put == [waiting], "a collector keeps outputs elsewhere now: see take_outputs"


def test_a_request_dies_of_an_exception_that_is_put() -> None:
    engine = Engine(STREAMED)
    error = RuntimeError("dead")
    engine.output_processor.propagate_error(error)
    assert engine.put == [error], "the engine's death comes another way: see Outputs.put"


@pytest.mark.parametrize("kind", [STREAMED, WHOLE])
def test_the_counts_of_a_request(kind: RequestOutputKind) -> None:
    changed = "RequestState counts otherwise: see request_counts"
    engine = Engine(kind)
    (state,) = engine.states
    assert engine.counts == [(False, 3, 0)], changed
    engine.step(state, 1)
    engine.step(state, 4)
    assert engine.counts == [(True, 3, 5)], changed
    assert patches.request_counts(state).queue_s == 0.5, changed
    engine.output_processor.abort_requests(["r"], internal=True)
    engine.step(state, 1)
    assert engine.counts == [(True, 3, 5)], "an aborted request counts on: see CallUsage"


def test_without_statistics_there_is_no_queue_time() -> None:
    engine = Engine(WHOLE)
    engine.states[0].stats = None
    assert patches.request_counts(engine.states[0]).queue_s is None


@pytest.mark.parametrize("kind", [STREAMED, WHOLE])
def test_the_choices_of_one_request_share_its_prompt(kind: RequestOutputKind) -> None:
    engine = Engine(kind, n=2)
    first, second = engine.states
    engine.step(first, 1)
    engine.step(second, 2)
    engine.step(second, 1, FinishReason.STOP)
    one, other = map(patches.request_counts, engine.states)
    assert one.prompt == other.prompt, "choices have no parent in common: see request_counts"
    engine.output_processor.abort_requests(["r"], internal=True)
    assert engine.counts == [(True, 3, 1), (True, 3, 3)]


def test_requests_are_registered_by_the_caller_before_anything_is_awaited() -> None:
    for function in (AsyncLLM._add_request, AsyncLLM.add_request):
        text = source(function)
        where = text.find("self.output_processor.add_request(")
        assert where > 0, "AsyncLLM registers requests elsewhere: see watch_requests"
        sent = text.find("await self.engine_core.add_request_async(")
        assert where < sent, "requests are sent before they are registered: see watch_requests"
    assert "self.output_processor = OutputProcessor(" in source(AsyncLLM.__init__)


def test_steps_of_beam_search_are_told_apart_by_their_id() -> None:
    text = source(beam_search)
    assert "-beam-{i}" in text, "beam search names its requests otherwise: see is_beam_step"
    assert "max_tokens=1," in text, "a step of beam search has more tokens: see is_beam_step"
    state = SimpleNamespace(external_req_id="cmpl-1-ab-beam-0", max_tokens_param=1)
    assert patches.is_beam_step(state)
    assert not patches.is_beam_step(SimpleNamespace(external_req_id="cmpl-1", max_tokens_param=1))
    internal = f"{state.external_req_id}-0a1b2c3d"
    assert internal.startswith(patches.beam_of(state))
    assert patches.beam_of(state) == "cmpl-1-ab-beam-"


@pytest.mark.parametrize("n", [1, 2])
def test_a_call_knows_its_requests_by_the_ids_that_the_core_has(n: int) -> None:
    """A core that dies names requests by these; a request with n > 1 has one for each choice."""
    engine = Engine(RequestOutputKind.DELTA, n=n)
    call = CallUsage()
    for state in engine.states:
        call.add(state)
    known = {state.request_id for state in engine.states}
    assert known == set(engine.output_processor.request_states)
    for name in known:
        assert call.charges({name: None, "another": 3}) == [None]
    assert call.charges(dict.fromkeys(known, 3) | {"another": None}) == [3] * n
    assert call.charges({"outside": None, "another": None}) == []
    assert call.charges({}) == []


def test_the_wait_for_a_turn_counts_as_time_in_the_queue() -> None:
    engine = Engine(RequestOutputKind.DELTA, n=1)
    call, tally = CallUsage(), Tally()
    for state in engine.states:
        call.add(state)
        state.is_prefilling = False
        state.stats = SimpleNamespace(queued_ts=10.0, scheduled_ts=10.5)
        call.waits[state.request_id] = 2.0
    call.fill(tally)
    assert tally.queue_s == 2.5


def test_a_call_knows_the_steps_of_its_beam_search() -> None:
    call = CallUsage()
    for step in range(3):
        name = f"cmpl-1-ab-beam-{step}"
        call.add(
            SimpleNamespace(external_req_id=name, request_id=f"{name}-0a1b", max_tokens_param=1)
        )
    assert call.charges({"cmpl-1-ab-beam-7-2c3d": 0}) == [0]
    assert call.charges({"cmpl-1-abc-beam-7-2c3d": 0}) == []
