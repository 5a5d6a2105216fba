"""What is replaced of vLLM in the process of its engine core, by `plugin.py`.

It stands apart from `patches.py`, which imports vLLM's frontend.
`tests/unit/engine/vllm/test_core_patches.py` holds each assumption against the installed version.
"""

from __future__ import annotations

import logging
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.engine.core import EngineCoreProc
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from serving.engine.vllm.accused import accuse

_log = logging.getLogger("serving.engine")
# Grammars that a core compiles at a time, at least.
GRAMMARS = 4


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


def patch_grammars() -> None:
    """Have a core compile several grammars at a time, so that a quick one does not wait for a slow
    one to end.

    vLLM has half as many threads as there are CPUs: one on two. xgrammar compiles without holding
    the interpreter.
    """
    init = StructuredOutputManager.__init__

    def with_threads(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        threads = getattr(self, "executor", None)
        if threads is not None and threads._max_workers < GRAMMARS:
            # It has started none of its threads yet.
            self.executor = ThreadPoolExecutor(GRAMMARS, thread_name_prefix="grammar")

    StructuredOutputManager.__init__ = with_threads
