"""From tokens to text, one token at a time, up to a stop sequence.

Text leaves as soon as nothing to come can change it: half a UTF-8 character waits for its other
half, and what may be the beginning of a stop sequence waits until it is one or is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

REPLACEMENT = "\ufffd"
# A character has at most four bytes. More pending tokens than this are not half a character but
# nonsense from the model, and are sent as such.
MAX_PENDING = 8
# How many of the prompt's last tokens are decoded in front of a completion's first token.
CONTEXT_TOKENS = 6

Decode = Callable[[list[int]], str]


class Detokenizer:
    """The text of a growing list of tokens.

    Tokens are decoded behind the ones before them, because a tokenizer may treat the first one of
    a text differently (SentencePiece drops its space). The text is that of decoding all tokens at
    once, without special tokens and without a broken character at its end.

    Args:
        decode: text of token IDs.
        special: IDs that have no text.
        before: the tokens that the completion continues; empty if it is a text of its own
            (encoder-decoder).
    """

    __slots__ = ("_decode", "_ids", "_read", "_sent", "_special")

    def __init__(self, decode: Decode, special: frozenset[int], before: Sequence[int] = ()) -> None:
        self._decode = decode
        self._special = special
        # The tokens to decode: the text of the first `_read` has been sent.
        self._ids = [token for token in before[-CONTEXT_TOKENS:] if token not in special]
        self._read = len(self._ids)
        # Characters already sent of the tokens after those.
        self._sent = 0

    def push(self, token: int) -> str:
        """The text that `token` makes certain; often none."""
        if token in self._special:
            return ""
        self._ids.append(token)
        known = len(self._decode(self._ids[: self._read])) if self._read else 0
        text = self._decode(self._ids)[known:]
        ended = not text.endswith(REPLACEMENT) or len(self._ids) - self._read > MAX_PENDING
        if not ended:
            text = text.rstrip(REPLACEMENT)
        new, self._sent = text[self._sent :], max(self._sent, len(text))
        if ended:
            del self._ids[: self._read]
            self._read = len(self._ids)
            self._sent = 0
        return new


class StopSequences:
    """Passes text on up to the first of `stops` that occurs in it."""

    __slots__ = ("_held", "_stops", "found")

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """What can be sent of the text held back so far and of `text`."""
        if not self._stops:
            return text
        text = self._held + text
        ends = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self.found = True
            self._held = ""
            return text[: min(ends)]
        held = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def rest(self) -> str:
        """The text still held back; to be called when no more comes."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0


class Detokenizers:
    """Makes `Detokenizer`s for one model.

    Args:
        tokenizer: a tokenizer of transformers.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset(tokenizer.all_special_ids)

    def after(self, before: Sequence[int]) -> Detokenizer:
        """A `Detokenizer` for a completion that continues the tokens `before`."""
        return Detokenizer(self._decode, self._special, before)

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text
