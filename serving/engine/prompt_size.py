"""Prompts and the context: a bound before a prompt is tokenized, which takes seconds and gigabytes
for megabytes, and the room that it leaves for the completion."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from serving.errors import ContextLengthExceeded, InvalidField

# Longer prompts are tokenized in a thread: a long one takes milliseconds, in which every other
# stream of this replica would stand still.
INLINE_TOKENIZE_CHARS = 4096
# Vocabularies have runs of spaces and the like as one token; below this nobody's prompt is cut.
FEWEST_CHARACTERS = 16


class PromptSize:
    """What cannot fit into a context whatever its tokens are.

    Args:
        tokenizer: of transformers.
        context: in tokens.
    """

    def __init__(self, tokenizer: Any, context: int) -> None:
        longest = max((len(token) for token in tokenizer.get_vocab()), default=0)
        self._context = context
        self._most = context * max(FEWEST_CHARACTERS, longest)

    def check(self, characters: int) -> None:
        """
        Raises:
            ContextLengthExceeded: not even if each token were the longest there is.
        """
        if characters > self._most:
            raise ContextLengthExceeded(
                f"the prompt has {characters} characters, which no tokenization fits into the "
                f"context of {self._context} tokens",
                param="prompt",
            )

    async def tokenize(self, characters: int, encode: Callable[[], list[int]]) -> list[int]:
        """The token IDs that `encode` makes of so many characters.

        Raises:
            ContextLengthExceeded: as `check`; nothing has been tokenized.
        """
        if characters <= INLINE_TOKENIZE_CHARS:
            return encode()
        self.check(characters)
        return await asyncio.to_thread(encode)


def completion_limit(
    prompt_tokens: int, asked: int | None, *, room: int, model: str, context: str, param: str
) -> int:
    """The most tokens a completion may have: what was asked for, or all that the prompt leaves.

    Args:
        room: tokens that are left for the completion.
        context: the model's, in words.
        param: the field that asked.

    Raises:
        InvalidField: the prompt has no tokens.
        ContextLengthExceeded: they do not fit.
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
