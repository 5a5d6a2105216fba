"""Tries the new requests of a step that killed an engine core, each by itself, in that core.

What a failing step tells is which requests ran in it, not which of them it failed of. The core ends
anyway, so there is nothing to lose by asking its model once more: a request that raises alone is
the one, and one that does not may be sent to another replica. Before each trial the model runs a
harmless request. If that raises, the device or the worker's state is broken, and a trial would
prove nothing.

Only engines on one device are tried: several wait for one another, so a trial could hang.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from vllm.pooling_params import PoolingParams
from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput
from vllm.v1.executor.uniproc_executor import UniProcExecutor

# How long trials may go on, in seconds; everybody who waits for this replica waits for them.
TRIALS_S = 3.0
_HARMLESS = "harmless"


def raise_alone(executor: Any, step: SchedulerOutput) -> list[str] | None:
    """The IDs of those new requests of a step that make the model raise when each runs alone.

    None if that cannot be said. One for which there was no time is not among them. Requests with
    multimodal inputs are tried with them. A request's first step is all that is tried: of one that
    has run before, the state that it had is gone.
    """
    if not isinstance(executor, UniProcExecutor) or step.kv_connector_metadata is not None:
        return None
    ends = time.monotonic() + TRIALS_S
    running = {_HARMLESS, *step.num_scheduled_tokens}
    guilty: list[str] = []
    for new in step.scheduled_new_reqs:
        if time.monotonic() > ends:
            break
        _take_what_is_left(executor)
        if _raises(executor, _alone(_harmless(new), 1, running)):
            # The request before has broken it; then the others are not to blame.
            return guilty or None
        trial = _alone(new, step.num_scheduled_tokens[new.req_id], running)
        images = step.scheduled_encoder_inputs.get(new.req_id)
        trial.scheduled_encoder_inputs = {} if images is None else {new.req_id: images}
        if _raises(executor, trial):
            guilty.append(new.req_id)
    return guilty


def _harmless(like: NewRequestData) -> NewRequestData:
    """A request of one token, in the memory of another one."""
    pooling = like.pooling_params
    return NewRequestData(
        req_id=_HARMLESS,
        prompt_token_ids=[0],
        mm_features=[],
        sampling_params=None if pooling else SamplingParams(max_tokens=1, temperature=0.0),
        pooling_params=PoolingParams(task=pooling.task) if pooling else None,
        block_ids=like.block_ids,
        num_computed_tokens=0,
        lora_request=None,
        prefill_token_ids=None if like.prefill_token_ids is None else [0],
    )


def _alone(new: NewRequestData, tokens: int, running: set[str]) -> SchedulerOutput:
    """A step that ends all that runs, and begins one request with its first tokens."""
    step = SchedulerOutput.make_empty()
    step.finished_req_ids = running
    step.scheduled_new_reqs = [new]
    step.num_scheduled_tokens = {new.req_id: tokens}
    step.total_num_scheduled_tokens = tokens
    return step


def _raises(executor: UniProcExecutor, step: SchedulerOutput) -> bool:
    try:
        if executor.execute_model(step) is None:
            executor.sample_tokens(None)
    except Exception:  # noqa: BLE001 - that it raises is all that is asked
        return True
    return False


def _take_what_is_left(executor: UniProcExecutor) -> None:
    """Take the samples of a step that failed between its model and them; else the worker refuses
    to run another step."""
    with contextlib.suppress(Exception):
        executor.sample_tokens(None)
