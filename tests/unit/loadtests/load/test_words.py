from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from loadtests.load.vocabulary import COMMON
from loadtests.load.words import BODY, HEAD, Words
from tests.unit.loadtests.load.statistics import SIGMAS, chi_square

WORDS = Words(COMMON, 1)


@pytest.mark.parametrize("count", [1, HEAD - 1, HEAD, HEAD + 1, 100, BODY + 5, 3 * BODY])
def test_exactly_so_many_words(count: int) -> None:
    text = WORDS.text(Random(1), count)
    assert len(text.split(" ")) == count
    assert set(text.split(" ")) <= set(COMMON)


def test_shorter_ones_begin_longer_ones() -> None:
    """A block of a trace that is not full is the beginning of the full one."""
    long = WORDS.text(Random(5), 512).split()
    for count in (1, 5, HEAD, 100, 511):
        assert WORDS.text(Random(5), count).split() == long[:count]


def test_no_two_begin_alike() -> None:
    """Not even of more texts than there are places in the body."""
    rng = Random(1)
    beginnings = {tuple(WORDS.text(rng, 16).split()[:HEAD]) for _ in range(2 * BODY)}
    assert len(beginnings) == 2 * BODY


def test_each_word_is_as_likely() -> None:
    rng = Random(1)
    seen = Counter(word for _ in range(20_000) for word in WORDS.text(rng, HEAD).split())
    expected = [20_000 * HEAD / len(COMMON)] * len(COMMON)
    assert chi_square([seen[word] for word in COMMON], expected) < SIGMAS


def test_another_seed_has_other_texts() -> None:
    other = Words(COMMON, 2)
    assert other.text(Random(1), 50).split()[HEAD:] != WORDS.text(Random(1), 50).split()[HEAD:]
