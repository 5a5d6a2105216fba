"""Text of so many words, drawn in microseconds."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate
from random import Random

# Words that begin a text and are drawn one by one: no two texts share their beginning, which a
# server that keeps prefixes would find. (400 ** 8 beginnings.)
HEAD = 8
# The rest is a piece of a long text that is made once.
BODY = 1 << 16


class Words:
    """Draws texts of words from a vocabulary.

    Copying a piece of a text that exists costs microseconds where drawing each of thousands of
    words would cost milliseconds.
    """

    def __init__(self, vocabulary: Sequence[str], seed: int) -> None:
        self._vocabulary = vocabulary
        drawn = Random(seed).choices(vocabulary, k=BODY)
        self._body = " ".join(drawn) + " "
        # Where each word begins, and the end.
        self._at = array("L", accumulate((len(word) + 1 for word in drawn), initial=0))

    def text(self, rng: Random, words: int) -> str:
        """Return a text. A shorter one from an equal `rng` is the beginning of a longer one."""
        start = int(rng.random() * BODY)
        head = rng.choices(self._vocabulary, k=min(words, HEAD))
        rest = words - len(head)
        if not rest:
            return " ".join(head)
        pieces = [" ".join(head), " "]
        while rest:
            end = min(BODY, start + rest)
            pieces.append(self._body[self._at[start] : self._at[end]])
            rest -= end - start
            start = 0
        return "".join(pieces)[:-1]
