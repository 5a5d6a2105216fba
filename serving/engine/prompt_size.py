"""Whether a prompt fits the context, and how much room it leaves for the completion.

A prompt that cannot fit is refused before it is tokenized: tokenizing megabytes takes seconds and
gigabytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from serving.errors import ContextLengthExceeded, InvalidField, Overloaded

# Longer prompts are tokenized in a thread: a long one takes milliseconds, in which every other
# stream of this replica would stand still.
INLINE_TOKENIZE_CHARS = 4096
# Prompts that are tokenized in threads at a time. More would only share the CPUs with the token
# path, and vLLM keeps one more copy of the tokenizer for each.
TOKENIZED_AT_ONCE = 2
# Prompts that may wait for one of these threads; the next is refused.
MOST_WAITING = 256
# A token is taken to have at least this many characters, also where a vocabulary's longest is
# shorter: no prompt that fits may be refused. Runs of spaces, for example, are one token.
FEWEST_CHARACTERS = 16


class PromptSize:
    """Refuses prompts that cannot fit a context, however they are tokenized.

    Args:
        tokenizer: a tokenizer of transformers.
        context: in tokens.
    """

    def __init__(self, tokenizer: Any, context: int) -> None:
        longest = max((len(token) for token in tokenizer.get_vocab()), default=0)
        self._context = context
        self._most = context * max(FEWEST_CHARACTERS, longest)
        # Threads of their own: all else that is done in threads does not wait for long prompts.
        self._threads = ThreadPoolExecutor(TOKENIZED_AT_ONCE, thread_name_prefix="tokenize")
        self._free = asyncio.Semaphore(TOKENIZED_AT_ONCE)
        self._waiting = 0

    @property
    def most(self) -> int:
        """The most characters that a prompt may have."""
        return self._most

    def check(self, characters: int) -> None:
        """Refuse a prompt of `characters` characters if it cannot fit.

        Raises:
            ContextLengthExceeded: it does not fit even if every token is the longest there is.
        """
        if characters > self._most:
            raise ContextLengthExceeded(
                f"the prompt has {characters} characters, which no tokenization fits into the "
                f"context of {self._context} tokens",
                param="prompt",
            )

    async def tokenize(self, characters: int, encode: Callable[[], list[int]]) -> list[int]:
        """The token IDs that `encode` makes of a text of `characters` characters.

        Raises:
            ContextLengthExceeded: as `check`, before anything is tokenized.
            Overloaded: too many long texts wait.
        """
        if characters <= INLINE_TOKENIZE_CHARS:
            return encode()
        self.check(characters)
        if self._waiting >= MOST_WAITING:
            raise Overloaded("too many long prompts wait to be tokenized", retry_after_s=1.0)
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        running = asyncio.get_running_loop().run_in_executor(self._threads, encode)
        running.add_done_callback(self._ended)
        return await asyncio.shield(running)

    def _ended(self, running: asyncio.Future[Any]) -> None:
        """The thread is free when its work ends, which it does not when the caller leaves. Nobody
        else looks then at what it failed of."""
        self._free.release()
        if not running.cancelled():
            running.exception()


def completion_limit(
    prompt_tokens: int, asked: int | None, *, room: int, model: str, context: str, param: str
) -> int:
    """The most tokens a completion may have: what was asked for, or all that the prompt leaves.

    Args:
        room: tokens that the prompt leaves for the completion.
        context: the model's context in words, for error messages.
        param: the field that `asked` is from, for error messages.

    Raises:
        InvalidField: the prompt has no tokens.
        ContextLengthExceeded: prompt and completion do not fit.
    """
    if prompt_tokens == 0:
        raise InvalidField("'prompt': has no tokens", param="prompt")
    if room < 1:
        raise ContextLengthExceeded(
            f"the prompt has {prompt_tokens} tokens; the context of model '{model}' is {context}",
            param="prompt",
        )
    if asked is None:
        return room
    if asked > room:
        raise ContextLengthExceeded(
            f"the prompt has {prompt_tokens} tokens and max_tokens is {asked}; the context of "
            f"model '{model}' is {context}",
            param=param,
        )
    return asked
