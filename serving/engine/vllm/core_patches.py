"""What is replaced of vLLM in the process of its engine core, by `plugin.py`.

It stands apart from `patches.py`, which imports vLLM's frontend.
`tests/unit/engine/vllm/test_core_patches.py` holds each assumption against the installed version.
"""

from __future__ import annotations

import ast
import inspect
import logging
import sys
import textwrap
import traceback
from concurrent.futures import ThreadPoolExecutor
from types import CodeType, FrameType
from typing import Any

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine.core import EngineCoreProc
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from serving.engine.vllm.accused import Charges, accuse
from serving.engine.vllm.core_trials import raise_alone

# Variables by which vLLM's functions hold the request, or its ID, that they work on.
_NAMES = ("request", "req_id", "request_id")

_log = logging.getLogger("serving.engine")
# Grammars that a core compiles at a time, at least.
GRAMMARS = 4


def patch_death() -> None:
    """Have a core that dies of an exception accuse the requests that it may have died of.

    The core calls `_send_engine_dead` while it handles the exception that ends it, and a core that
    a signal kills does not. Nothing is done in any step before.
    """
    send = EngineCoreProc._send_engine_dead

    def accuse_and_send(self: Any) -> None:
        try:
            # A worker process that a signal killed shows as an exception here.
            if not getattr(self.model_executor, "is_failed", False):
                accuse(charges(sys.exception(), self.model_executor))
        except Exception:  # noqa: BLE001 - its death must be told whatever happens here
            _log.exception("the requests that it died of could not be named")
        send(self)

    EngineCoreProc._send_engine_dead = accuse_and_send


def patch_lone_prompts() -> None:
    """Have the scheduler run the prompt of its only request in pieces, too.

    It does with others (`long_prefill_token_threshold`), since those would wait; but so does who
    comes while a long prompt runs that was alone when the step began.
    """
    schedule = Scheduler.schedule

    def schedule_piece(self: Any, *args: Any, **kwargs: Any) -> SchedulerOutput:
        piece = self.scheduler_config.long_prefill_token_threshold
        most = self.max_num_scheduled_tokens
        if not 0 < piece < most or sum(self.get_request_counts()) != 1:
            return schedule(self, *args, **kwargs)
        self.max_num_scheduled_tokens = piece
        try:
            return schedule(self, *args, **kwargs)
        finally:
            self.max_num_scheduled_tokens = most

    Scheduler.schedule = schedule_piece


def charges(error: BaseException | None, executor: Any) -> Charges:
    """The requests that the core may have died of, when `error` ended it.

    A request that is new in the failing step is convicted if it was alone in it, if the code that
    raised was working on it, or if it makes the model raise again when it runs alone
    (`core_trials.py`). Where that cannot be tried, all new ones are convicted. Whatever else ran in
    the step is in doubt: a request may also be killed in a later step than its first, and there are
    faults that need two requests. If the code that raised was working on one of those, it alone is.
    """
    if error is None:
        return {}
    frames = list(traceback.walk_tb(error.__traceback__))[::-1]
    step = _step(frames)
    if step is None:
        return _planned(frames)
    old = step.scheduled_cached_reqs
    doubt: Charges = {new.req_id: 0 for new in step.scheduled_new_reqs}
    doubt |= zip(old.req_ids, old.num_output_tokens, strict=True)
    if (name := _worked_on(frames, doubt)) is not None:
        doubt = {name: doubt[name]}
    new = [new for new in step.scheduled_new_reqs if new.req_id in doubt]
    if len(doubt) > 1 and new:
        guilty = raise_alone(executor, step)
        if guilty is None:
            return doubt | {each.req_id: None for each in new}
        if guilty:
            return dict.fromkeys(guilty)
        return doubt
    return {new[0].req_id: None} if new else doubt


def _step(frames: list[tuple[FrameType, int]]) -> SchedulerOutput | None:
    """The step that an exception was raised in; its frames come innermost first.

    It is in them, as a variable of this name. The innermost counts: with asynchronous scheduling
    there are two steps at a time. vLLM's own dump for such a death (`dump_engine_exception`) would
    be the natural place to look, but is not called for an exception in the scheduler, nor for every
    one in a worker.
    """
    for frame, _ in frames:
        step = frame.f_locals.get("scheduler_output")
        if isinstance(step, SchedulerOutput):
            return step
    return None


def _planned(frames: list[tuple[FrameType, int]]) -> Charges:
    """If the scheduler had not finished its step: the request that it was looking at."""
    for frame, _ in frames:
        request = frame.f_locals.get("request")
        if isinstance(request, Request):
            return {str(request.request_id): request.num_output_tokens or None}
    return {}


def _worked_on(frames: list[tuple[FrameType, int]], step: Charges) -> str | None:
    """The request of the step that the code which raised was working on, if it says so."""
    for frame, line in frames:
        for name in _NAMES:
            value = frame.f_locals.get(name)
            found = value.request_id if isinstance(value, Request) else value
            if isinstance(found, str) and found in step and _holds(frame.f_code, name, line):
                return found
    return None


def _holds(code: CodeType, name: str, line: int) -> bool:
    """True if a variable belongs to what is done at a line of a function: an argument, or set in a
    loop that the line is in. After the loop it would only be a leftover."""
    if name in inspect.getargs(code).args:
        return True
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, SyntaxError):
        return False
    line -= code.co_firstlineno - 1
    return any(
        isinstance(each, ast.Name) and each.id == name and isinstance(each.ctx, ast.Store)
        for loop in ast.walk(tree)
        if isinstance(loop, ast.For | ast.While)
        and loop.body[0].lineno <= line <= (loop.body[-1].end_lineno or 0)
        for each in ast.walk(loop)
    )


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
