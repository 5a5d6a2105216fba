from __future__ import annotations

import pytest

from serving.api.excerpt import EXCERPT_CHARS, excerpt


@pytest.mark.parametrize("text", ["", "phi-2", "a/b.c-d:e", "Größe 模型 🦙", "x" * EXCERPT_CHARS])
def test_short_text_is_shown_as_it_is(text: str) -> None:
    assert excerpt(text) == text


def test_long_text_is_cut_and_says_so() -> None:
    assert excerpt("ab" * 4000) == "ab" * 50 + "... (7900 more)"
    assert len(excerpt("x" * 10**6)) < EXCERPT_CHARS + 25
    assert excerpt("abcdef", 3) == "abc... (3 more)"


@pytest.mark.parametrize(
    "char", ["\n", "\r", "\0", "\x1b", "\x7f", "\x85", "\u2028", "\u202e", "\ud800", "\ufeff"]
)
def test_what_cannot_be_printed_is_not(char: str) -> None:
    assert excerpt(f"a{char}b") == "a?b"


def test_it_can_be_encoded_whatever_it_was() -> None:
    excerpt("".join(map(chr, range(0xD7F0, 0xE010))), 10**6).encode()
