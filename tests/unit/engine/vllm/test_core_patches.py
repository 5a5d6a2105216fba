"""What `core_patches.py` assumes of vLLM, against the installed version."""

from __future__ import annotations

import ast
import inspect
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import CachedRequestData, NewRequestData, SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine.core import EngineCore, EngineCoreProc
from vllm.v1.executor.multiproc_executor import MultiprocExecutor
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from serving.engine.vllm import core_patches
from serving.engine.vllm.accused import VARIABLE, AccusedRequests


def step(*new: str, old: bool = True) -> SchedulerOutput:
    """The scheduler's output with these new requests, beside one that has run before."""
    output = SchedulerOutput.make_empty()
    output.scheduled_new_reqs = [
        NewRequestData(name, [1], [], None, None, ([0],), 0, None) for name in new
    ]
    if old:
        output.scheduled_cached_reqs = CachedRequestData(["old"], set(), [], {}, [None], [5], [9])
    return output


def request(name: str, said: int = 0) -> Request:
    made = Request(name, [1, 2], SamplingParams(max_tokens=9), None)
    if said:
        made.append_output_token_ids([1] * said)
    return made


class Core:
    """What of an `EngineCoreProc` runs a step, with a worker and a scheduler that may raise."""

    step = EngineCore.step

    def __init__(self, output: SchedulerOutput, raises: str, is_failed: bool = False) -> None:
        def part(name: str, returns: Any = None) -> Any:
            def run(*args: Any, **kwargs: Any) -> Any:
                if name == raises:
                    raise RuntimeError(name)
                return returns

            return run

        future = SimpleNamespace(result=part("result", object()))
        self.model_executor = SimpleNamespace(
            execute_model=part("execute_model", future), is_failed=is_failed
        )
        self.scheduler = SimpleNamespace(
            has_requests=lambda: True,
            schedule=part("schedule", output),
            get_grammar_bitmask=part("get_grammar_bitmask"),
            make_stats=part("make_stats"),
            update_from_output=part("update_from_output"),
        )
        quiet = SimpleNamespace(enable_logging_iteration_details=False)
        self.vllm_config = SimpleNamespace(observability_config=quiet)
        self.log_stats = False

    log_error_detail = EngineCore.log_error_detail
    capture_iteration_details = EngineCore.capture_iteration_details
    _should_throttle_prefills = EngineCore._should_throttle_prefills

    def _process_aborts_queue(self) -> None:
        pass


Trial = Callable[[list[str] | None], None]


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> Trial:
    """Sets who raises alone."""

    def set_result(guilty: list[str] | None) -> None:
        monkeypatch.setattr(core_patches, "raise_alone", lambda executor, step: guilty)

    set_result([])
    return set_result


def charges(error: BaseException | None) -> Any:
    return core_patches.charges(error, None)


@pytest.mark.parametrize(
    "raises", ["execute_model", "get_grammar_bitmask", "result", "update_from_output"]
)
def test_all_in_the_failing_step_are_found(raises: str, trial: Trial) -> None:
    """Wherever in the step the exception comes from: in the worker, as its result, or after it."""
    core = Core(step("a", "b"), raises)
    with pytest.raises(RuntimeError, match=raises) as caught:
        core.step()  # type: ignore[misc]
    assert charges(caught.value) == {"a": 0, "b": 0, "old": 9}


@pytest.mark.parametrize(("new", "old", "guilty", "found"), [
    ("ab", True, ["b"], {"b": None}),
    ("ab", True, None, {"a": None, "b": None, "old": 9}),
    ("ab", False, None, {"a": None, "b": None}),
    ("ab", False, [], {"a": 0, "b": 0}),
    ("a", True, [], {"a": 0, "old": 9}),
    ("a", False, [], {"a": None}),
    ("", True, ["never asked"], {"old": 9}),
])  # fmt: skip
def test_of_the_new_ones_those_are_convicted_that_raise_alone(
    trial: Trial, new: str, old: bool, guilty: list[str] | None, found: dict[str, int | None]
) -> None:
    trial(guilty)
    with pytest.raises(RuntimeError) as caught:
        Core(step(*new, old=old), "execute_model").step()  # type: ignore[misc]
    assert charges(caught.value) == found


def works(request: Request | str) -> None:
    raise RuntimeError


def loops(names: list[str], *, within: bool) -> None:
    for req_id in names:
        if within and req_id == "b":
            raise RuntimeError
    raise RuntimeError


@pytest.mark.parametrize(("work", "found"), [
    (lambda: works("a"), {"a": None}),
    (lambda: works("old"), {"old": 9}),
    (lambda: works("another"), {"a": 0, "b": 0, "old": 9}),
    (lambda: works(request("a")), {"a": None}),
    (lambda: loops(["a", "b", "old"], within=True), {"b": None}),
    (lambda: loops(["a", "b", "old"], within=False), {"a": 0, "b": 0, "old": 9}),
])  # fmt: skip
def test_whom_the_code_works_on_that_raises(
    trial: Trial, work: Callable[[], None], found: dict[str, int | None]
) -> None:
    """An argument, or the variable of a loop that it is in; not what a loop has left behind."""

    def run(scheduler_output: SchedulerOutput) -> None:
        work()

    with pytest.raises(RuntimeError) as caught:
        run(step("a", "b"))
    assert charges(caught.value) == found


def test_vllm_calls_them_what_we_look_for() -> None:
    """Where faults of single requests show most: results, prompt logprobs, the worker's states."""
    for function in (
        Scheduler.update_from_output,
        GPUModelRunner._get_prompt_logprobs_dict,
        GPUModelRunner._update_states,
    ):
        code = inspect.unwrap(function).__code__
        lines = range(code.co_firstlineno, max(line or 0 for *_, line in code.co_lines()))
        held = [
            name for name in core_patches._NAMES
            if any(core_patches._holds(code, name, line) for line in lines)
        ]  # fmt: skip
        assert held, function
    assert "request" in inspect.signature(Scheduler._update_request_with_output).parameters


def test_steps_call_their_plan_what_we_look_for() -> None:
    for function in (
        EngineCore.step,
        EngineCore.step_with_batch_queue,
        Scheduler.update_from_output,
        GPUModelRunner.execute_model,
    ):
        code = inspect.unwrap(function).__code__
        assert "scheduler_output" in code.co_varnames, f"{function}: see _step"


def test_the_innermost_step_counts(trial: Trial) -> None:
    """With asynchronous scheduling the core holds one step while another one fails."""

    def inner(scheduler_output: SchedulerOutput) -> None:
        raise RuntimeError

    def outer(scheduler_output: SchedulerOutput) -> None:
        inner(step("b"))

    with pytest.raises(RuntimeError) as caught:
        outer(step("a"))
    assert charges(caught.value) == {"b": 0, "old": 9}


@pytest.mark.parametrize(("said", "found"), [(0, {"r": None}), (3, {"r": 3})])
def test_in_the_scheduler_it_is_whom_it_looks_at(said: int, found: dict[str, int | None]) -> None:
    def schedule(request: Request) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError) as caught:
        schedule(request("r", said))
    assert charges(caught.value) == found
    code = Scheduler.schedule.__code__
    assert "request" in (*code.co_varnames, *code.co_cellvars)


def test_an_exception_outside_any_step_accuses_nobody() -> None:
    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError
    assert charges(caught.value) == {}
    assert charges(None) == {}


@pytest.mark.parametrize("is_failed", [False, True])
def test_the_accused_are_written_before_the_core_says_it_is_dead(
    monkeypatch: pytest.MonkeyPatch, is_failed: bool
) -> None:
    """A worker that a signal killed (`is_failed`) accuses nobody."""
    monkeypatch.setenv(VARIABLE, "")
    accused = AccusedRequests()
    read: list[Any] = []
    monkeypatch.setattr(
        EngineCoreProc, "_send_engine_dead", lambda self: read.append(accused.read())
    )
    core_patches.patch_death()
    core = Core(step("a"), "execute_model", is_failed)
    try:
        core.step()  # type: ignore[misc]
    except RuntimeError:
        EngineCoreProc._send_engine_dead(core)
    assert read == [{} if is_failed else {"a": None, "old": 9}]


def test_the_core_says_that_it_is_dead_whatever_we_fail_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/nowhere/at/all")
    sent: list[bool] = []
    monkeypatch.setattr(EngineCoreProc, "_send_engine_dead", lambda self: sent.append(True))
    core_patches.patch_death()
    try:
        Core(step("a"), "execute_model").step()  # type: ignore[misc]
    except RuntimeError:
        EngineCoreProc._send_engine_dead(Core(step(), ""))
    assert sent == [True]


def test_a_core_handles_its_exception_when_it_says_so() -> None:
    """`_send_engine_dead` is called in the `except` block of the exception, and only there."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(EngineCoreProc.run_engine_core)))
    handlers = [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
    assert any("_send_engine_dead" in ast.unparse(node) for node in handlers)
    assert "self.is_failed = False" in inspect.getsource(MultiprocExecutor._init_executor)
    monitor = inspect.getsource(MultiprocExecutor.start_worker_monitor)
    assert monitor.index("is_failed = True") < monitor.index(".shutdown()")


def test_a_core_compiles_grammars_in_this_pool() -> None:
    made = inspect.getsource(StructuredOutputManager.__init__)
    assert "self.executor = ThreadPoolExecutor(max_workers=max_workers)" in made
    assert ".submit(" not in made
    asked = inspect.getsource(StructuredOutputManager.grammar_init)
    assert "self.executor.submit(self._create_grammar, request)" in asked


@pytest.mark.parametrize("threads", [1, 8])
def test_a_quick_grammar_does_not_wait_for_a_slow_one(
    monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    def as_vllm_does(self: Any) -> None:
        self.executor = ThreadPoolExecutor(max_workers=threads)

    monkeypatch.setattr(StructuredOutputManager, "__init__", as_vllm_does)
    core_patches.patch_grammars()
    manager: Any = StructuredOutputManager()  # type: ignore[call-arg]
    end = threading.Event()
    slow = [manager.executor.submit(end.wait, 20) for _ in range(core_patches.GRAMMARS - 1)]
    try:
        assert manager.executor.submit(lambda: "quick").result(timeout=10) == "quick"
        assert not any(job.done() for job in slow)
    finally:
        end.set()
    assert manager.executor._max_workers >= threads


@pytest.mark.parametrize(
    ("running", "waiting", "piece", "most"),
    [(1, 0, 128, 128), (0, 1, 128, 128), (2, 0, 128, 4096), (1, 1, 128, 4096), (0, 0, 128, 4096),
     (1, 0, 0, 4096), (1, 0, 8192, 4096)],
    ids=["runs", "comes", "two", "another comes", "none", "whole prompts", "a larger piece"],
)  # fmt: skip
def test_the_prompt_of_the_only_request_is_cut_too(
    monkeypatch: pytest.MonkeyPatch, running: int, waiting: int, piece: int, most: int
) -> None:
    seen = []
    monkeypatch.setattr(
        Scheduler, "schedule", lambda self: seen.append(self.max_num_scheduled_tokens)
    )
    core_patches.patch_lone_prompts()
    scheduler = SimpleNamespace(
        max_num_scheduled_tokens=4096,
        scheduler_config=SimpleNamespace(long_prefill_token_threshold=piece),
        get_request_counts=lambda: (running, waiting),
    )
    Scheduler.schedule(scheduler)
    assert seen == [most]
    assert scheduler.max_num_scheduled_tokens == 4096


def test_a_step_runs_so_many_tokens_as_the_scheduler_may_run() -> None:
    """And the one that runs ahead of the outputs plans its steps in the same way."""
    source = inspect.getsource(Scheduler.schedule)
    assert "token_budget = self.max_num_scheduled_tokens\n" in source
    assert "if num_eligible_reqs > 1" in source, "vLLM cuts the prompt of an only request itself"
    assert "schedule" not in vars(AsyncScheduler)
    assert list(inspect.signature(Scheduler.get_request_counts).parameters) == ["self"]
