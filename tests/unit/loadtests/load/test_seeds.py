from __future__ import annotations

from hashlib import blake2b
from itertools import pairwise
from random import Random

from loadtests.load.seeds import numbered, seed_of
from tests.unit.loadtests.load.statistics import KOLMOGOROV, kolmogorov, uniform


def test_the_same_in_every_process() -> None:
    digest = blake2b(b"int:1\0str:phase\0int:0", digest_size=8).digest()
    assert seed_of(1, "phase", 0) == int.from_bytes(digest, "big")
    assert len({seed_of(1, "a"), seed_of("1", "a"), seed_of(1, "a", 0), seed_of(11, "a")}) == 4


def test_first_numbers_of_neighbours_are_independent() -> None:
    base = seed_of(1, "sessions")
    firsts = [Random(numbered(base, n)).random() for n in range(10_000)]
    assert kolmogorov(firsts, uniform) < KOLMOGOROV
    pairs = [abs(a - b) for a, b in pairwise(firsts)]
    assert kolmogorov(pairs, lambda x: 1 - (1 - x) ** 2) < 1.5 * KOLMOGOROV
