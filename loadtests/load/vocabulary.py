"""The words that prompts are made of."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from random import Random

from loadtests.scenarios.errors import ScenarioError

# Common English words: with the space before it, each is one token of most models.
COMMON = tuple(Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split())
# Fewer would make prompts that repeat themselves.
FEWEST = 32


@lru_cache(maxsize=8)
def vocabulary_of(tokenizer: str) -> tuple[str, ...]:
    """Return words that are one token each wherever they stand, so that words are tokens.

    `tokenizer` is the path of a tokenizer.json. Raises ScenarioError if it cannot be read, if the
    package `tokenizers` is not there, or if the vocabulary has too few such words.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise ScenarioError(
            f"{tokenizer}: exact lengths need the package tokenizers: pip install tokenizers, or "
            "leave `tokenizer` out"
        ) from None
    try:
        found = Tokenizer.from_file(tokenizer)
    except Exception as error:  # noqa: BLE001 (the package raises bare Exceptions)
        raise ScenarioError(f"{tokenizer}: cannot be read as a tokenizer.json: {error}") from None

    def tokens(texts: list[str]) -> list[int]:
        return [len(e.ids) for e in found.encode_batch(texts, add_special_tokens=False)]

    decoded = (found.decode([number]).strip() for number in range(found.get_vocab_size()))
    words = sorted({word for word in decoded if re.fullmatch("[A-Za-z]{2,12}", word)})
    words = [word for word, count in zip(words, tokens(words), strict=True) if count == 1]
    # The same word after a space is another token, in most vocabularies, or several.
    pairs = tokens([f"{word} {word}" for word in words])
    words = [word for word, count in zip(words, pairs, strict=True) if count == 2]
    # Some tokenizers have tokens over a space; then the number of tokens is not that of words.
    text = Random(1).choices(words, k=4096) if words else []
    if len(words) < FEWEST or tokens([" ".join(text)]) != [len(text)]:
        raise ScenarioError(
            f"{tokenizer}: it has too few words of one token for texts of an exact length; leave "
            "`tokenizer` out"
        )
    return tuple(words)
