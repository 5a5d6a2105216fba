"""Seeds of random numbers, from the scenario's seed and what the numbers are for."""

from __future__ import annotations

from hashlib import blake2b

_MASK = 2**64 - 1
# The odd number nearest to 2 ** 64 divided by the golden ratio: neighbours get distant seeds.
_STRIDE = 0x9E3779B97F4A7C15


def seed_of(*parts: int | str) -> int:
    """Return a seed of 64 bits for what `parts` name together; the same in every process."""
    text = "\0".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def numbered(base: int, number: int) -> int:
    """Return the seed of one of many alike; far cheaper than `seed_of`."""
    return (base + number * _STRIDE) & _MASK
