"""What is replaced of vLLM in the processes of its engine core.

vLLM calls `apply` in every process it starts, and in the engine server, through the entry point
`vllm.general_plugins` (pyproject.toml). It stands apart from `patches.py`, which imports vLLM's
frontend. `tests/unit/engine/vllm/test_core_patches.py` holds each assumption against the installed
version.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vllm.lora.layers import LogitsProcessorWithLoRA
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.engine.core import EngineCoreProc
from vllm.v1.request import Request
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from serving.engine.vllm.accused import accuse

_MARK = "_serving_patched"
_log = logging.getLogger("serving.engine")


def apply() -> None:
    """Apply every patch of this module to this process; a no-op when called again."""
    if getattr(EngineCoreProc, _MARK, False):
        return
    setattr(EngineCoreProc, _MARK, True)
    patch_death()
    patch_prompt_logprobs()


# death


def patch_death() -> None:
    """Have a core that dies of an exception accuse the requests that were new in its last step.

    The core calls `_send_engine_dead` while it handles the exception that ends it, and a core that
    a signal kills does not. Nothing is done in any step before.
    """
    send = EngineCoreProc._send_engine_dead

    def accuse_and_send(self: Any) -> None:
        try:
            # A worker process that a signal killed shows as an exception here.
            if not getattr(self.model_executor, "is_failed", False):
                accuse(new_requests(sys.exception()))
        except Exception:  # noqa: BLE001 - its death must be told whatever happens here
            _log.exception("the requests that were new could not be named")
        send(self)

    EngineCoreProc._send_engine_dead = accuse_and_send


def new_requests(error: BaseException | None) -> list[str]:
    """The IDs of the requests that were new in the step that `error` was raised in.

    The step's frames are in the exception's traceback, and in them the scheduler's output, as a
    variable of that name. The innermost counts: with asynchronous scheduling there are two steps
    at a time. vLLM's own dump for such a death (`dump_engine_exception`) would be the natural place
    to look, but is not called for an exception in the scheduler, nor for every one in a worker. If
    the scheduler had not finished, the accused is the request that it was looking at.
    """
    if error is None:
        return []
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][::-1]
    for frame in frames:
        step = frame.f_locals.get("scheduler_output")
        if isinstance(step, SchedulerOutput):
            return [str(new.req_id) for new in step.scheduled_new_reqs]
    for frame in frames:
        request = frame.f_locals.get("request")
        if isinstance(request, Request):
            return [] if request.num_output_tokens else [str(request.request_id)]
    return []


# LoRA on the CPU


def patch_prompt_logprobs() -> None:
    """Let an engine with LoRA on the CPU compute the logprobs of prompts.

    For these the model runner computes logits of all tokens of one request's prompt at a time. The
    LoRA layer of the logits takes each row for the next token of another request of the step, of
    which there are fewer or more: the product of the two fails, or mixes up adapters. vLLM's CPU
    kernels take a single adapter index for any number of rows, so each request is computed while
    its own index is the only one.
    """
    original = GPUModelRunner._get_prompt_logprobs_dict

    def one_by_one(self: Any, hidden_states: Any, num_scheduled_tokens: Any) -> Any:
        asked = self.num_prompt_logprobs
        if not asked or not (wrappers := _logits_wrappers(self)):
            return original(self, hidden_states, num_scheduled_tokens)
        found: dict[str, Any] = {}
        for request in list(asked):
            if request not in num_scheduled_tokens:
                continue
            row = self.query_start_loc.np[self.input_batch.req_id_to_index[request]].item()
            self.num_prompt_logprobs = {request: asked[request]}
            try:
                with _only_adapter_of(wrappers, row):
                    found |= original(self, hidden_states, num_scheduled_tokens)
                if not self.num_prompt_logprobs:
                    del asked[request]
            finally:
                self.num_prompt_logprobs = asked
        return found

    GPUModelRunner._get_prompt_logprobs_dict = one_by_one


def _logits_wrappers(runner: Any) -> list[PunicaWrapperCPU]:
    """What applies the adapters to the logits of this runner's model, if that is on the CPU."""
    if getattr(runner, "lora_config", None) is None:
        return []
    layers = (
        layer for layer in runner.model.modules() if isinstance(layer, LogitsProcessorWithLoRA)
    )
    wrappers = {id(layer.punica_wrapper): layer.punica_wrapper for layer in layers}
    return [each for each in wrappers.values() if isinstance(each, PunicaWrapperCPU)]


@contextmanager
def _only_adapter_of(wrappers: list[PunicaWrapperCPU], row: int) -> Iterator[None]:
    """While the block runs, all rows of logits have the adapter of the step's token `row`."""
    kept = [
        (wrapper, wrapper.indices_len[1], wrapper._sampler_indices[0].item())
        for wrapper in wrappers
    ]
    for wrapper in wrappers:
        wrapper._sampler_indices[0] = wrapper._token_lora_indices[row]
        wrapper.indices_len[1] = 1
    try:
        yield
    finally:
        for wrapper, length, first in kept:
            wrapper._sampler_indices[0] = first
            wrapper.indices_len[1] = length
