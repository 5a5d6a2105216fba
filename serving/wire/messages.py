"""The messages between a router and an engine replica.

Each travels as JSON inside a link frame (`frames.py`). Unknown fields are ignored and new fields
have defaults, so a router and a replica of neighbouring versions understand each other.
"""

from __future__ import annotations

import msgspec

PROTOCOL_VERSION = 1
DEFAULT_TEMPERATURE = 0.2
# The form of an OpenAI answer whose stream ends without `data: [DONE]`.
UNMARKED = "unmarked"


class AdapterRef(msgspec.Struct, frozen=True):
    """What a replica needs to load a LoRA adapter. `path` is the directory of its files, or a
    repository that has them at `revision`."""

    id: str
    path: str
    revision: str | None = None


class PromptFormat(msgspec.Struct, frozen=True):
    """How an adapter formats prompts, where that differs from its base model (None: as the base).

    `style` is how the adapter gets Create Completion's prompt: `raw` or `chat`.
    """

    style: str | None = None
    chat_template: str | None = None


class Sampling(msgspec.Struct, frozen=True):
    """Sampling parameters of one completion, already validated; None means the engine's default."""

    temperature: float = DEFAULT_TEMPERATURE
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    top_p: float | None = None
    top_k: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    reasoning_effort: str | None = None


class ImageRef(msgspec.Struct, frozen=True):
    """An image of a prompt: a `data:` or `https:` URL, and how closely to look at it."""

    url: str
    detail: str = "auto"


class Standing(msgspec.Struct, frozen=True, omit_defaults=True):
    """What decides whose turn it is where requests wait for an engine.

    `owner` names whose request it is, `weight` is that account's share as a multiple of others'. A
    `batch` request comes after all that are none.
    """

    owner: str = ""
    weight: float = 1.0
    batch: bool = False


class CompletionCall(msgspec.Struct, tag="completion", frozen=True):
    """Run one Create Completion request.

    `model` is the ID the caller asked for. `cache_space` names the callers who may share the
    engine's caches with this one; if it is empty, all do. `form` is how the answer is
    written, where that is not as Create Completion's. `standing` is where it stands among others
    that wait. `allowance` is how many completion tokens it may make before it has been told more
    (`Allowance`); 0: as many as it likes.
    """

    request_id: str
    model: str
    prompt: str
    stream: bool
    sampling: Sampling
    served_model: str
    adapter: AdapterRef | None = None
    images: tuple[ImageRef, ...] = ()
    prompt_format: PromptFormat | None = None
    cache_space: str = ""
    form: str = ""
    allowance: int = 0
    standing: Standing = Standing()


class HttpCall(msgspec.Struct, tag="http", frozen=True):
    """Run one HTTP request in the engine's own OpenAI app; the body follows in the same frame.

    `form` is how the engine server writes the app's answer (`serving/engine/calls.py`); if it is
    empty, the answer stays as it is. `served_model` is the model that answers, for forms that name
    it. `standing` is where it stands among others that wait.
    """

    request_id: str
    model: str
    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    adapter: AdapterRef | None = None
    prompt_format: PromptFormat | None = None
    cache_space: str = ""
    form: str = ""
    served_model: str = ""
    allowance: int = 0
    standing: Standing = Standing()


Call = CompletionCall | HttpCall


class Spent(msgspec.Struct, frozen=True):
    """What a call with an allowance has used so far; its replica says so before the allowance is
    used up, and is told the next one."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class Allowance(msgspec.Struct, frozen=True):
    """How many completion tokens a call may make in all. `last`: it ends there. Otherwise it asks
    again before it comes there, and goes on if it hears nothing."""

    tokens: int
    last: bool = False


class Hello(msgspec.Struct, frozen=True):
    """First frame of a router on a new link."""

    router: str
    token: str = ""
    version: int = PROTOCOL_VERSION


class Load(msgspec.Struct, frozen=True):
    """How busy a replica is. Counts are requests.

    `in_flight` counts all requests that the replica has accepted and not ended; `yours` counts
    those of the router that gets this report. `running` and `waiting` are the engine scheduler's
    own counts. `adapters` are the IDs of the adapters held in memory. `routers` is how many routers
    have a link to the replica.
    """

    in_flight: int = 0
    yours: int = 0
    running: int = 0
    waiting: int = 0
    adapters: tuple[str, ...] = ()
    draining: bool = False
    routers: int = 1


class Welcome(msgspec.Struct, frozen=True):
    """First frame of a replica: who it is and how busy. `takes_parts`: a body may come in PARTs."""

    replica: str
    model: str
    max_model_len: int
    load: Load
    takes_parts: bool = False


class Head(msgspec.Struct, frozen=True):
    """Status and headers of an `HttpCall`'s response."""

    status: int
    headers: tuple[tuple[str, str], ...]


SSE_HEAD = Head(200, (("content-type", "text/event-stream; charset=utf-8"),))
JSON_HEAD = Head(200, (("content-type", "application/json"),))


class End(msgspec.Struct, frozen=True):
    """Last frame of a call that ended well or was cancelled; a cancelled one has no finish reason.

    The token counts are the engine's, up to this frame; `cached_tokens` are those of the prompt
    that were in its cache, `images` counts those that it loaded. `queue_s` is the time in seconds
    from the call's arrival in the engine to its first scheduling. `guessed`: a hosted provider has
    not said them.
    """

    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    queue_s: float | None = None
    cached_tokens: int = 0
    images: int = 0
    guessed: bool = False


class Fail(msgspec.Struct, frozen=True):
    """Last frame of a call that failed, with the tokens it had used by then.

    `retryable`: another replica may succeed, if the caller has seen nothing of this answer.
    """

    status: int
    code: str
    message: str
    param: str | None = None
    retryable: bool = False
    retry_after_s: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    images: int = 0
