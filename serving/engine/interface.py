"""What every engine is, and what it needs of whoever runs a call on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from serving.wire.messages import CompletionCall, End, Head, HttpCall


class Chunk(msgspec.Struct):
    """One step of a completion: text that was not sent before, and the counts so far."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str | None = None
    queue_s: float | None = None


class Reply(Protocol):
    """Where an engine writes the answer to one call."""

    @property
    def writable(self) -> bool:
        """False while the router does not read: more would only pile up."""

    def head(self, head: Head) -> None: ...

    def data(self, data: bytes) -> None: ...

    async def drained(self) -> None:
        """Wait until it is writable."""


Emit = Callable[[Chunk], None]
Drained = Callable[[], Awaitable[None]]


class EngineLoad(msgspec.Struct, frozen=True):
    """The scheduler's counts and the adapters held, as the engine itself sees them."""

    running: int = 0
    waiting: int = 0
    adapters: tuple[str, ...] = ()


class Engine(ABC):
    """One model on one set of devices. Implementations: `vllm.py`, `hf_engine.py`
    (transformers), `upstream/` (hosted providers), `echo.py` (test double)."""

    max_model_len: int

    @abstractmethod
    async def generate(self, call: CompletionCall, emit: Emit) -> None:
        """Run one completion to its end; cancelling this frees the engine's slot.

        `emit` is called with every chunk where it is made, in the step that made it: handing each
        token to a task of its request costs more than all that is done with it here. It must not
        block. The last chunk has a finish reason.

        Raises:
            ContextLengthExceeded: the prompt does not fit.
            EngineFailed: the engine is dead.
        """

    async def generate_paced(self, call: CompletionCall, emit: Emit, drained: Drained) -> None:
        """`generate` for whoever can be made to wait: `drained` is when the client reads.

        An engine with a model of its own cannot be, and what it makes meanwhile is joined; one
        that passes on what somebody else makes waits, and lets that one wait.
        """
        await self.generate(call, emit)

    @abstractmethod
    async def http(self, call: HttpCall, body: bytes, reply: Reply) -> End:
        """Answer an OpenAI request in the engine's own app. Cancelling it frees the slot."""

    @abstractmethod
    def load(self) -> EngineLoad:
        """The current load, without waiting."""

    @abstractmethod
    async def check(self) -> None:
        """Raise `EngineFailed` if the engine cannot serve any more."""

    @abstractmethod
    async def close(self) -> None:
        """Stop the engine and free its memory."""
