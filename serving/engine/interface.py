"""The interface of every engine, and what a call on it needs: a reply to write, a tally to fill."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from serving.wire.messages import Call, CompletionCall, End, Head, HttpCall


class Chunk(msgspec.Struct):
    """One step of a completion: the text it adds. The last one has the finish reason."""

    text: str
    finish_reason: str | None = None


class Tally(msgspec.Struct):
    """What one call has used so far.

    The engine fills it in. The counts are right when it emits its last chunk, and when `generate`
    or `http` returns or raises, cancelled or not. A call that waits in the engine's queue has used
    nothing: its prompt counts once the model has begun to run it. `finish_reason` is set with the
    last part of an answer. An engine that does not keep the counts up to date on the way sets
    `count`, which does. `guessed` is true while nobody has counted a part of them, and they
    are what the answer's length says.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    queue_s: float | None = None
    finish_reason: str | None = None
    cached_tokens: int = 0
    images: int = 0
    guessed: bool = False
    count: Callable[[], None] | None = None

    def refresh(self) -> None:
        """Bring the counts up to date, in the middle of a call."""
        if self.count is not None:
            self.count()

    def end(self) -> End:
        """The last frame of a call that ended well."""
        return self._with(self.finish_reason)

    def used(self) -> End:
        """The last frame of a call that was cancelled."""
        return self._with(None)

    def _with(self, finish_reason: str | None) -> End:
        return End(
            finish_reason,
            self.prompt_tokens,
            self.completion_tokens,
            self.queue_s,
            self.cached_tokens,
            self.images,
            self.guessed,
        )


class Reply(Protocol):
    """Where an engine writes the answer to one call."""

    @property
    def writable(self) -> bool:
        """False while the router does not read: more would only pile up."""

    def head(self, head: Head) -> None: ...

    def data(self, data: bytes) -> None: ...

    async def drained(self) -> None:
        """Wait until `writable` is true."""


Emit = Callable[[Chunk], None]
Drained = Callable[[], Awaitable[None]]


class EngineLoad(msgspec.Struct, frozen=True):
    """The scheduler's counts and the adapters held, as the engine itself sees them."""

    running: int = 0
    waiting: int = 0
    adapters: tuple[str, ...] = ()


class Suspect(NamedTuple):
    """A call that the engine may have died of, and its HTTP body.

    `place` is None for one that it died of with all likelihood. Any other is in doubt: it ran in
    the step that failed, and had `place` tokens of its answer by then. A call of several requests
    may be a suspect more than once.
    """

    call: Call
    body: bytes
    place: int | None = None


class Engine(ABC):
    """One model on one set of devices. Implementations: `vllm/`, `hf/` (transformers),
    `serving/upstream/` (hosted providers), `echo.py` (test double)."""

    max_model_len: int

    @abstractmethod
    async def generate(self, call: CompletionCall, emit: Emit, tally: Tally) -> None:
        """Run one completion to its end; cancelling this frees the engine's slot.

        The engine calls `emit` in the step that made the chunk, without a task in between: waking
        a task for every token would cost more than the rest of the token path. So `emit` must not
        block.

        Raises:
            ContextLengthExceeded: the prompt does not fit.
            EngineFailed: the engine is dead.
        """

    async def generate_paced(
        self, call: CompletionCall, emit: Emit, drained: Drained, tally: Tally
    ) -> None:
        """`generate`, at the client's pace where the engine has a choice.

        An engine that passes on another service's answer awaits `drained` after each chunk, so
        that the other service is slowed down too. An engine with a model of its own does not wait
        for one slow client: the writer joins the chunks that this client has not read.
        """
        await self.generate(call, emit, tally)

    @abstractmethod
    async def http(self, call: HttpCall, body: bytes, reply: Reply, tally: Tally) -> None:
        """Answer an OpenAI request in the engine's own app; cancelling this frees the slot."""

    @abstractmethod
    def load(self) -> EngineLoad:
        """The current load, without waiting."""

    @abstractmethod
    async def check(self) -> None:
        """Raise `EngineFailed` if the engine cannot serve any more."""

    # For the watchdog (`watchdog.py`). An engine that does not say more is never found stuck.

    def steps(self) -> int:
        """A count that grows with every step of the model that came to something."""
        return 0

    def held(self) -> int:
        """Requests that the engine has taken and not ended."""
        return 0

    async def prove(self) -> None:  # noqa: B027 - an engine that is never asked
        """Run a request of one token through all that a caller's request goes through.

        Raises:
            Exception: it failed.
        """

    def suspects(self) -> Sequence[Suspect]:
        """The calls that ran in the step whose exception ended the engine, or only those of them
        that it died of, if it can tell. None while it lives, and none if a signal killed it.

        Once `check`, or a call's own `EngineFailed`, says that the engine is dead, they are known.
        """
        return ()

    @abstractmethod
    async def close(self) -> None:
        """Stop the engine and free its memory."""
