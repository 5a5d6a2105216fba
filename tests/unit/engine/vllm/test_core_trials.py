"""Trials on a worker that notes what it is asked to run. On a real engine they are tested in
tests/cluster/test_suspects.py."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput
from vllm.v1.executor.multiproc_executor import MultiprocExecutor
from vllm.v1.executor.uniproc_executor import UniProcExecutor
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from serving.engine.vllm import core_trials
from serving.engine.vllm.core_trials import raise_alone


class Executor(UniProcExecutor):
    """Raises in a step with one of the deadly requests; `breaks` makes it raise ever after."""

    def __init__(self, deadly: str = "", breaks: bool = False, late: bool = False) -> None:
        self.deadly = deadly
        self.breaks = breaks
        self.late = late
        self.broken = False
        self.left = True
        self.steps: list[SchedulerOutput] = []

    def execute_model(self, scheduler_output: SchedulerOutput, non_block: bool = False) -> Any:
        assert not self.left, "the samples of the step before have not been taken"
        assert not non_block
        self.steps.append(scheduler_output)
        self.left = True
        if not self.late:
            self._run()
        return None

    def sample_tokens(self, grammar_output: Any, non_block: bool = False) -> Any:
        self.left = False
        if self.steps and self.late:
            self._run()
        return object()

    def _run(self) -> None:
        (new,) = self.steps[-1].scheduled_new_reqs
        if self.broken or new.req_id in self.deadly:
            self.broken = self.breaks
            self.left = not self.late
            raise RuntimeError


def step(names: str, pooling: bool = False) -> SchedulerOutput:
    made = SchedulerOutput.make_empty()
    sampling = None if pooling else SamplingParams()
    params = PoolingParams(task="embed") if pooling else None
    made.scheduled_new_reqs = [
        NewRequestData(name, [1, 2], [], sampling, params, ([at],), 0, None)
        for at, name in enumerate(names)
    ]
    made.num_scheduled_tokens = {"old": 1} | dict.fromkeys(names, 2)
    made.scheduled_encoder_inputs = {"a": [0]}
    return made


@pytest.mark.parametrize("late", [False, True])
def test_whoever_raises_alone_is_found(late: bool) -> None:
    executor = Executor("b", late=late)
    assert raise_alone(executor, step("abc")) == ["b"]
    ran = [each.scheduled_new_reqs[0].req_id for each in executor.steps]
    assert ran == ["harmless", "a", "harmless", "b", "harmless", "c"]
    trial = executor.steps[1]
    assert trial.num_scheduled_tokens == {"a": 2}
    assert trial.total_num_scheduled_tokens == 2
    assert trial.scheduled_encoder_inputs == {"a": [0]}
    assert executor.steps[0].finished_req_ids == {"harmless", "old", "a", "b", "c"}
    assert executor.steps[0].total_num_scheduled_tokens == 1
    assert executor.steps[3].scheduled_encoder_inputs == {}


def test_nobody_may_raise_alone() -> None:
    assert raise_alone(Executor(), step("ab")) == []


def test_a_broken_worker_says_nothing() -> None:
    broken = Executor()
    broken.broken = broken.breaks = True
    assert raise_alone(broken, step("ab")) is None


def test_whoever_breaks_it_is_found_and_the_others_are_not_to_blame() -> None:
    assert raise_alone(Executor("bc", breaks=True), step("abc")) == ["b"]


def test_there_is_a_time_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_trials, "TRIALS_S", -1.0)
    executor = Executor("a")
    assert raise_alone(executor, step("a")) == []
    assert executor.steps == []


def test_an_embedding_model_runs_a_harmless_embedding() -> None:
    executor = Executor("a")
    assert raise_alone(executor, step("a", pooling=True)) == ["a"]
    (harmless,) = executor.steps[0].scheduled_new_reqs
    assert harmless.sampling_params is None
    assert harmless.pooling_params is not None
    assert harmless.pooling_params.task == "embed"


def test_several_devices_are_not_tried() -> None:
    assert not issubclass(MultiprocExecutor, UniProcExecutor)
    assert raise_alone(object(), step("a")) is None
    connected = step("a")
    connected.kv_connector_metadata = object()
    assert raise_alone(Executor(), connected) is None


def test_what_the_worker_is_asked_is_what_it_takes() -> None:
    fields = inspect.signature(NewRequestData).parameters
    assert {"prefill_token_ids", "mm_features", "block_ids"} <= set(fields)
    assert not [
        name for name, field in fields.items()
        if field.default is field.empty and name not in inspect.getsource(core_trials._harmless)
    ]  # fmt: skip
    states = inspect.getsource(GPUModelRunner._update_states)
    assert "self.requests.pop(req_id, None)" in states, "an unknown request may be ended"
    sample = inspect.getsource(GPUModelRunner.sample_tokens)
    assert "self.execute_model_state = None" in sample
