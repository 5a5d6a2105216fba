"""What crosses the boundary between a router and an engine replica, and the engine's interface.

Every structure here travels as JSON inside a link frame (`frames.py`), so a router and an engine
replica of neighbouring versions can talk: unknown fields are ignored, new ones have defaults.
"""

from __future__ import annotations

import msgspec

PROTOCOL_VERSION = 1
DEFAULT_TEMPERATURE = 0.2


class AdapterRef(msgspec.Struct, frozen=True):
    """A LoRA adapter as a replica needs it: its ID, and the directory that holds its files or the
    repository and its revision that do."""

    id: str
    path: str
    revision: str | None = None


class PromptFormat(msgspec.Struct, frozen=True):
    """What of an adapter's prompts is not as its base's: how Create Completion's prompt reaches it
    (`raw` or `chat`), and the template of its chats."""

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


class CompletionCall(msgspec.Struct, tag="completion", frozen=True):
    """Run one Create Completion request. `model` is the ID the caller asked for."""

    request_id: str
    model: str
    prompt: str
    stream: bool
    sampling: Sampling
    served_model: str
    adapter: AdapterRef | None = None
    images: tuple[ImageRef, ...] = ()
    prompt_format: PromptFormat | None = None


class HttpCall(msgspec.Struct, tag="http", frozen=True):
    """Run one HTTP request in the engine's own OpenAI app; the body follows in the same frame."""

    request_id: str
    model: str
    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    adapter: AdapterRef | None = None
    prompt_format: PromptFormat | None = None


Call = CompletionCall | HttpCall


class Hello(msgspec.Struct, frozen=True):
    """First frame of a router on a new link."""

    router: str
    token: str = ""
    version: int = PROTOCOL_VERSION


class Load(msgspec.Struct, frozen=True):
    """How busy a replica is. Counts are requests.

    `in_flight` are all requests the replica has accepted and not ended, `yours` those of the
    link that the report is sent on, so that a router can tell its own share from the others';
    `routers` is how many have a link.
    `running` and `waiting` are the engine scheduler's own counts. `adapters` are the IDs held in
    memory.
    """

    in_flight: int = 0
    yours: int = 0
    running: int = 0
    waiting: int = 0
    adapters: tuple[str, ...] = ()
    draining: bool = False
    routers: int = 1


class Welcome(msgspec.Struct, frozen=True):
    """First frame of a replica: who it is and how busy."""

    replica: str
    model: str
    max_model_len: int
    load: Load


class Head(msgspec.Struct, frozen=True):
    """Status and headers of an `HttpCall`'s response."""

    status: int
    headers: tuple[tuple[str, str], ...]


SSE_HEAD = Head(200, (("content-type", "text/event-stream; charset=utf-8"),))
JSON_HEAD = Head(200, (("content-type", "application/json"),))


class End(msgspec.Struct, frozen=True):
    """Last frame of a request that ended well or was cancelled; a cancelled one has no finish
    reason. The engine counts the tokens: those it has used by then.

    `queue_s` is the time in seconds between arrival in the engine and its first scheduling.
    """

    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    queue_s: float | None = None


class Fail(msgspec.Struct, frozen=True):
    """Last frame of a request that failed, with the tokens it had used by then.

    `retryable`: another replica may succeed.
    """

    status: int
    code: str
    message: str
    param: str | None = None
    retryable: bool = False
    retry_after_s: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
