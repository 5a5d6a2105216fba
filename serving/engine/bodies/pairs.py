"""What the scoring endpoints are asked: to compare queries with documents.

A cross-encoder reads a document together with its query, so one long query with many documents is
many long prompts, in a body that is small. Its size is that of all pairs, written out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

# The paths of vLLM's app, and its names for the two sides.
RERANK = "/rerank"
PATHS = frozenset(("/score", RERANK))
QUERIES = ("query", "queries", "text_1", "data_1")
DOCUMENTS = ("documents", "items", "text_2", "data_2")
FIELDS = frozenset((*QUERIES, *DOCUMENTS))


class Pairs(NamedTuple):
    """How many pairs, and how many characters they have together."""

    number: int
    characters: int


def texts_of(given: Mapping[str, Any], name: str) -> list[Any]:
    """The texts of one field, or whatever stands in their place; none if the field is absent."""
    value = given.get(name)
    if value is None:
        return []
    return value if type(value) is list else [value]


def pairs_of(given: Mapping[str, Any]) -> Pairs:
    """The pairs of a body, at most: of several names for one side vLLM takes one, and it is not
    known here which."""
    queries = [texts_of(given, name) for name in QUERIES]
    documents = [texts_of(given, name) for name in DOCUMENTS]
    count = max(map(len, (*queries, *documents)))
    repeated = max((_characters(side) for side in queries if len(side) == 1), default=0)
    once = sum(map(_characters, (*queries, *documents)))
    return Pairs(count, once + repeated * max(0, count - 1))


def _characters(texts: list[Any]) -> int:
    return sum(len(text) for text in texts if type(text) is str)
