from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from serving.engine.hf.text import MAX_PENDING, REPLACEMENT, Detokenizer, StopSequences
from tests.unit.engine.conftest import TINY_LLAMA

# Bytes of every UTF-8 length, joined characters, right-to-left, and the line ends SDKs split at.
TEXT = "naïve café — 日本語のテキスト 🙂👩‍👩‍👧 שלום\u2028 done"


def detokenizer(tokenizer: Any, before: str = "") -> Detokenizer:
    return Detokenizer(
        lambda ids: tokenizer.decode(ids, clean_up_tokenization_spaces=False),
        frozenset(tokenizer.all_special_ids),
        tokenizer.encode(before) if before else [],
    )


def test_bytes_become_characters_when_they_are_whole() -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY_LLAMA)
    tokens = tokenizer.encode(TEXT)
    assert len(tokens) > len(TEXT.split()) * 3  # most characters are several tokens
    text = detokenizer(tokenizer)
    pieces = [text.push(token) for token in tokens]
    assert "".join(pieces) == TEXT
    assert not any(REPLACEMENT in piece for piece in pieces)
    assert sum(map(bool, pieces)) > len(pieces) / 3  # text is not kept for the end


def test_half_a_character_at_the_end_is_not_sent() -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY_LLAMA)
    tokens = tokenizer.encode("ab 🙂", add_special_tokens=False)
    text = detokenizer(tokenizer)
    assert "".join(text.push(token) for token in tokens[:-1]).rstrip() == "ab"
    assert text.push(tokens[-1]).endswith("🙂")


def test_bytes_that_are_no_characters_do_not_pile_up() -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY_LLAMA)
    (*_, first) = tokenizer.encode("é", add_special_tokens=False)  # a continuation byte
    text = detokenizer(tokenizer)
    said = "".join(text.push(first) for _ in range(100))
    assert len(said) > 100 - 2 * MAX_PENDING
    (ascii_token,) = tokenizer.encode("a", add_special_tokens=False)
    assert text.push(ascii_token).endswith("a")


def test_spaces_of_sentencepiece(checkpoints: dict[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoints["t5"])
    for sentence in ("the water of his people", "go down, now!", "  I said  that ", "-a b"):
        tokens = tokenizer.encode(sentence)
        text = detokenizer(tokenizer)
        said = "".join(text.push(token) for token in tokens)
        assert said == tokenizer.decode(tokens, skip_special_tokens=True)


def test_special_tokens_have_no_text_and_eat_no_space(checkpoints: dict[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoints["t5"])
    (the, end) = tokenizer.encode("the")
    text = detokenizer(tokenizer)
    assert [text.push(token) for token in (0, the, end, 0, the)] == ["", "the", "", "", " the"]


def test_a_completion_continues_its_prompt(checkpoints: dict[str, Path]) -> None:
    """SentencePiece drops the space of a text's first piece, but a completion's first keeps it."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoints["t5"])
    (water, _) = tokenizer.encode("water")
    assert detokenizer(tokenizer, before="the first").push(water) == " water"
    assert detokenizer(tokenizer).push(water) == "water"


@pytest.mark.parametrize(
    ("stops", "pieces", "said", "found"),
    [
        ((), ["a", "b"], ["a", "b"], False),
        (("x",), ["a", "b"], ["a", "b"], False),
        (("\n\n",), ["one\n", "two", "\n", "\nthree"], ["one", "\ntwo", "", ""], True),
        (("stop",), ["a st", "op b"], ["a ", ""], True),
        (("stop",), ["a st", "ay"], ["a ", "stay"], False),
        (("bc", "abcd"), ["xab", "cd"], ["x", ""], True),
        (("aab",), ["aa", "ab"], ["", "a"], True),
    ],
)
def test_stop_sequences(
    stops: tuple[str, ...], pieces: list[str], said: list[str], found: bool
) -> None:
    matcher = StopSequences(stops)
    assert [matcher.push(piece) for piece in pieces] == said
    assert matcher.found is found


def test_what_was_held_back_comes_at_the_end() -> None:
    matcher = StopSequences(("stop",))
    assert matcher.push("a sto") == "a "
    assert matcher.rest() == "sto"
    assert matcher.rest() == ""


def test_however_a_text_is_cut_it_stops_at_the_same_place() -> None:
    rng = random.Random(1)
    for _ in range(500):
        text = "".join(rng.choices("ab", k=20))
        stop = "".join(rng.choices("ab", k=rng.randint(1, 6)))
        matcher, said, rest = StopSequences((stop,)), "", text
        while rest and not matcher.found:
            size = rng.randint(1, 5)
            said += matcher.push(rest[:size])
            rest = rest[size:]
        said += matcher.rest()
        assert said == text.partition(stop)[0]
        assert matcher.found is (stop in text)
