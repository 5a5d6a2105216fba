"""All that this package borrows from vLLM's internals, a function each: of the engine and of the
OpenAI app here, of other parts in the modules beside.

Public parts of vLLM used as documented are imported where they are used. What is here may change
with any release of vLLM. `tests/unit/engine/vllm/test_patches*.py` test each assumption on the
installed version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

from fastapi import FastAPI
from prometheus_fastapi_instrumentator.middleware import PrometheusInstrumentatorMiddleware
from starlette.middleware.cors import CORSMiddleware
from vllm.envs import enable_envs_cache
from vllm.lora.request import LoRARequest
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.stats import SchedulerStats

# The name of vLLM's default media connector in its registry.
_CONNECTOR = "http"
# What the ID of a beam search's step has, and no other request's.
BEAM = "-beam-"
_FOR_A_LISTENER: tuple[Any, ...] = (CORSMiddleware, PrometheusInstrumentatorMiddleware)


# the engine


def keep_environment() -> None:
    """Let vLLM remember its environment variables.

    vLLM computes a variable anew whenever it is read, some for every token. Its engine core calls
    this for its own process; the process of `AsyncLLM` is left out.
    """
    enable_envs_cache()


class LatestStats(StatLoggerBase):  # type: ignore[misc]  # vLLM is not typed for us
    """Keeps the scheduler's newest counts.

    `AsyncLLM` accepts custom loggers, but calls the structures that it gives them unstable.
    Asking the engine core instead would be a call to another process for each load report.

    `steps` counts those that came to something: that had output, or left a request running, whose
    prompt may be long. A scheduler that can place none of its requests goes on stepping too.
    """

    def __init__(self, vllm_config: Any = None, engine_index: int = 0) -> None:
        self.steps = 0
        self.running = 0
        self.waiting = 0

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        if scheduler_stats is not None:
            # vLLM makes an iteration's statistics for steps with output only.
            self.steps += iteration_stats is not None or scheduler_stats.num_running_reqs > 0
            self.running = scheduler_stats.num_running_reqs
            self.waiting = scheduler_stats.num_waiting_reqs

    def log_engine_initialized(self) -> None:
        pass


def take_outputs(collector: Any, put: Callable[[Any], None]) -> None:
    """Have `put` called with each output of a request, including one that has come already.

    vLLM's output processor calls `RequestOutputCollector.put` for each output and for an exception
    that ends the request; the collector wakes the task that reads it. The replaced `put` needs no
    such task (docs/decisions.md, 15).
    """
    collector.put = put
    if collector.output is not None:
        put(collector.output)


def watch_requests(llm: AsyncLLM, added: Callable[[Any], None]) -> None:
    """Call `added` with the state of each request (`RequestState`) that `llm` takes.

    vLLM tells what a request has used with its last output, which a cancelled request of vLLM's own
    app never gets. The output processor registers a state per request, or per choice of a request
    with n > 1, in the task of the caller and before the first await, so none is missed.
    """
    processor = llm.output_processor
    add = processor.add_request

    def add_and_tell(request: Any, *args: Any, **kwargs: Any) -> None:
        states, name = processor.request_states, request.request_id
        known = name in states  # more input for a request whose input is streamed
        add(request, *args, **kwargs)
        if not known:
            added(states[name])

    processor.add_request = add_and_tell


def salt_requests(llm: AsyncLLM, salt: Callable[[str | None], str | None]) -> None:
    """Replace the `cache_salt` of each request, the caller's own or None, by what `salt` returns.

    The salt is part of the key of a prompt's first block in the prefix cache, and through it of
    all others. Whatever a request came as (each body of the OpenAI app that may have a salt, its
    choices, the steps of a beam search), vLLM registers it here before it goes to the engine core,
    in the task of the caller.
    """
    processor = llm.output_processor
    add = processor.add_request

    def salt_and_add(request: Any, *args: Any, **kwargs: Any) -> None:
        request.cache_salt = salt(request.cache_salt)
        add(request, *args, **kwargs)

    processor.add_request = salt_and_add


class RequestCounts(NamedTuple):
    """What one `RequestState` says. `begun`: the model has run the prompt. `prompt` identifies the
    prompt: the choices of a request with n > 1 share one."""

    begun: bool
    prompt: int
    prompt_tokens: int
    completion_tokens: int
    queue_s: float | None
    cached_tokens: int


def request_counts(state: Any) -> RequestCounts:
    """The counts of a request so far, also after its end.

    The frontend hears of a request's scheduling with its first output, so a prompt that is still
    being run looks like one that waits.
    """
    times, text = state.stats, state.detokenizer
    queue_s = None
    if times is not None and times.scheduled_ts and times.queued_ts:
        queue_s = max(0.0, float(times.scheduled_ts - times.queued_ts))
    return RequestCounts(
        begun=not state.is_prefilling,
        prompt=id(state.parent_req or state),
        prompt_tokens=state.prompt_len,
        # A pooling request has no detokenizer and makes no tokens.
        completion_tokens=0 if text is None else text.num_output_tokens(),
        queue_s=queue_s,
        cached_tokens=state.num_cached_tokens,
    )


def is_beam_step(state: Any) -> bool:
    """True for a step of beam search. vLLM makes each step a request for one token, whose prompt is
    the text so far; only its ID tells it from other requests."""
    return state.max_tokens_param == 1 and BEAM in state.external_req_id


def beam_of(state: Any) -> str:
    """What the internal IDs of all steps of a beam search begin with; `state` is one of them."""
    stem, mark, _ = str(state.external_req_id).partition(BEAM)
    return stem + mark


def internal_id(state: Any) -> str:
    """The ID by which the engine core knows a request: the caller's one is made unique."""
    return str(state.request_id)


# the OpenAI app


def remove_listener_layers(app: FastAPI) -> None:
    """Remove the two middlewares of vLLM's app that wrap each chunk of a stream.

    They serve browsers and scrapers. Only the engine server calls this app, and its requests are
    counted on both ends of the link.
    """
    app.user_middleware = [
        layer for layer in app.user_middleware if layer.cls not in _FOR_A_LISTENER
    ]


def ignore_exit_orders(app: FastAPI) -> None:
    """Give vLLM's error handlers a dummy server to stop.

    When the engine is dead they set `app.state.server.should_exit`. The engine server watches the
    engine itself, and has last frames to send before it exits.
    """
    app.state.server = SimpleNamespace(should_exit=False)


def choose_models(
    app: FastAPI,
    adapters: Mapping[str, LoRARequest],
    is_base_model: Callable[[str], bool],
    model_name: Callable[..., str],
) -> None:
    """Let the router decide which adapter a request uses, and which name its answer has.

    vLLM looks the body's `model` up in a table of adapters that it has loaded itself, and writes
    its own name for the base model into each answer.
    """
    models = app.state.openai_serving_models
    models.lora_requests = adapters
    models.is_base_model = is_base_model
    models.model_name = model_name


def prefer_template(app: FastAPI, asked: Callable[[], str | None]) -> None:
    """Use the chat template that `asked` returns, where it returns one.

    vLLM's app has one template for all chats, and takes another from a request's body only if
    callers may send any. Its parts read their `chat_template` for each request, so a property
    takes the attribute's place.
    """
    state = app.state
    # Models that do not generate have no chat.
    chats = (
        getattr(state, name, None) for name in ("openai_serving_chat", "anthropic_serving_messages")
    )
    for part in (state.online_renderer, state.serving_tokenization, *chats):
        if part is not None:
            _prefer_template(part, asked)


def _prefer_template(part: Any, asked: Callable[[], str | None]) -> None:
    default, kind = part.chat_template, type(part)
    own = property(lambda _: asked() or default)
    part.__class__ = type(kind.__name__, (kind,), {"chat_template": own})


def final_usage(scope: dict[str, Any]) -> tuple[int, int] | None:
    """Prompt and completion tokens as vLLM's app counts them, or None if it did not.

    Its handlers leave them in the ASGI scope's state, when a request that generates has ended.
    """
    metadata = scope["state"].get("request_metadata")
    usage = getattr(metadata, "final_usage_info", None)
    return None if usage is None else (usage.prompt_tokens or 0, usage.completion_tokens or 0)


def replace_media_connector(connector: Any) -> None:
    """Load media for chats through `connector` only, in this process.

    vLLM makes a connector per request from a registry of classes. Its own connector fetches from
    any host on a list of names, whatever that host's address is (docs/decisions.md, 20).
    """
    MEDIA_CONNECTOR_REGISTRY.name2class[_CONNECTOR] = lambda **_: connector
