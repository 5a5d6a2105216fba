"""Prompts in pieces: only where the model allows it, and never against what an operator says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from serving.engine.vllm.prefill import cut_prompts
from tests.unit.engine.conftest import TINY_LLAMA

pytest.importorskip("vllm")


def config(runner: str = "generate", context: int = 1024, **scheduler: Any) -> Any:
    """A test double of what is read of vLLM's configuration; the defaults are vLLM's own."""
    fields = {
        "enable_chunked_prefill": True,
        "disable_chunked_mm_input": False,
        "long_prefill_token_threshold": 0,
    }
    return SimpleNamespace(
        scheduler_config=SimpleNamespace(**fields | scheduler),
        model_config=SimpleNamespace(runner_type=runner, max_model_len=context),
    )


@pytest.mark.parametrize(
    ("engine", "tokens", "piece"),
    [
        (config(), 256, 256),
        (config(), 0, 0),
        (config(context=100), 256, 100),
        (config(long_prefill_token_threshold=64), 256, 64),
        (config(runner="pooling"), 256, 0),
        (config(enable_chunked_prefill=False), 256, 0),
        (config(disable_chunked_mm_input=True), 256, 0),
    ],
    ids=["cut", "off", "context", "operator", "reads", "whole", "images"],
)
def test_where_prompts_are_cut(engine: Any, tokens: int, piece: int) -> None:
    cut_prompts(engine, tokens)
    assert engine.scheduler_config.long_prefill_token_threshold == piece


def test_vllm_has_what_is_read() -> None:
    from vllm.config import SchedulerConfig
    from vllm.engine.arg_utils import EngineArgs

    defaults = SchedulerConfig.default_factory(max_model_len=1024, is_encoder_decoder=False)
    assert defaults.long_prefill_token_threshold == 0
    assert defaults.enable_chunked_prefill
    assert not defaults.disable_chunked_mm_input
    # It may be changed after it was checked.
    defaults.long_prefill_token_threshold = 2048
    encoder = SchedulerConfig.default_factory(max_model_len=1024, is_encoder_decoder=True)
    assert not encoder.enable_chunked_prefill
    model = EngineArgs(model=str(TINY_LLAMA), dtype="float32").create_model_config()
    assert (model.runner_type, model.max_model_len) == ("generate", 1024)


def test_vllm_cuts_no_prompt_that_is_alone() -> None:
    """What it costs who has the engine to itself: nothing. The name is all there is to hold on to
    without an engine; `make heavy` and `tests/cluster/test_heavy.py` see what it does."""
    import inspect

    from vllm.v1.core.sched.scheduler import Scheduler

    source = inspect.getsource(Scheduler.schedule)
    assert "if num_eligible_reqs > 1" in source
    assert "self.scheduler_config.long_prefill_token_threshold" in source
