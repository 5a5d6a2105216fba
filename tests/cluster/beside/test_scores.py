"""Scores and ranks beside bare vLLM, of a cross-encoder and of an embedding model."""

from __future__ import annotations

from typing import Any

import pytest

from local_models.make import RERANKER
from tests.cluster.beside.alike import KIND, UNKNOWN, assert_alike, assert_refused
from tests.cluster.beside.conftest import EMBED
from tests.cluster.beside.sides import Served, Sides, asked

BESIDE = (RERANKER, EMBED)
SCORE, RERANK = "/score", "/rerank"
CROSS = [Served(RERANKER, RERANKER, RERANKER), Served("rerank-latest", RERANKER, RERANKER)]
COSINE = Served(EMBED, EMBED, EMBED)
QUERY = "What is the capital of France?"
QUERIES = [QUERY, "Why is the sky blue?"]
TEXTS = ["The capital of France is Paris.", "The capital of Italy is Rome."]
LONG = "Once upon a time there was a brave fox named Felix. " * 8
RANKED = {"query": QUERY, "documents": ["A spider has eight legs.", *TEXTS]}
PAIR = {"queries": QUERY, "documents": TEXTS}

SCORES: dict[str, dict[str, Any]] = {
    "one and one": {"queries": QUERY, "documents": TEXTS[0]},
    "one and several": PAIR,
    "several and several": {"queries": QUERIES, "documents": TEXTS},
    "items": {"queries": QUERIES, "items": TEXTS},
    "texts": {"text_1": QUERIES, "text_2": TEXTS},
    "data": {"data_1": QUERIES, "data_2": TEXTS},
    "a list of one": {"queries": [QUERY], "documents": TEXTS},
    "without activation": {**PAIR, "use_activation": False},
    "with activation": {**PAIR, "use_activation": True},
    "cut": {"text_1": QUERY, "text_2": [LONG], "truncate_prompt_tokens": 40},
    "cut documents": {"text_1": QUERY, "text_2": [LONG], "max_tokens_per_doc": 12},
    "cut queries": {"text_1": LONG, "text_2": TEXTS, "max_tokens_per_query": 12},
    "a user": {**PAIR, "user": "u"},
}
RANKS: dict[str, dict[str, Any]] = {
    "ranked": RANKED,
    "the best": {**RANKED, "top_n": 1},
    "none is all": {**RANKED, "top_n": 0},
    "more than there are": {**RANKED, "top_n": 99},
    "one document": {"query": QUERY, "documents": TEXTS[0]},
    "documents cut": {"query": QUERY, "documents": [LONG, *TEXTS], "max_tokens_per_doc": 10},
    "not activated": {**RANKED, "use_activation": False},
    "pairs cut": {"query": QUERY, "documents": [LONG], "truncate_prompt_tokens": 30},
}
BAD_SCORES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no documents": {"queries": QUERY},
    "no queries": {"documents": TEXTS},
    "an empty list": {"queries": QUERY, "documents": []},
    "no queries in a list": {"queries": [], "documents": TEXTS},
    "two and one": {"queries": QUERIES, "documents": TEXTS[:1]},
    "numbers": {"queries": QUERY, "documents": [5]},
    "above the context": {"queries": QUERY * 40, "documents": TEXTS},
    "cut above the context": {**PAIR, "truncate_prompt_tokens": 999},
    "cut below": {**PAIR, "truncate_prompt_tokens": -2},
    "a limit of tokens below none": {**PAIR, "max_tokens_per_doc": -1},
    "a limit of tokens above the context": {**PAIR, "max_tokens_per_doc": 999},
    "activation is a text": {**PAIR, "use_activation": "perhaps"},
    "an unknown model": {**PAIR, "model": "nothing"},
}
BAD_RANKS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no documents": {"query": QUERY},
    "no query": {"documents": TEXTS},
    "an empty list": {"query": QUERY, "documents": []},
    "several queries": {"query": QUERIES, "documents": TEXTS},
    "top_n below none": {**RANKED, "top_n": -1},
    "top_n is a text": {**RANKED, "top_n": "many"},
    "above the context": {"query": QUERY * 40, "documents": TEXTS},
    "numbers": {"query": QUERY, "documents": [5]},
    "an unknown model": {**RANKED, "model": "nothing"},
}
# How a refusal differs from vLLM's, and why.
OTHERWISE = {
    "numbers": KIND,
    "several queries": KIND,
    "an unknown model": UNKNOWN,
}


@pytest.mark.parametrize(("served", "name"), asked([*CROSS, COSINE], SCORES))
def test_scores(sides: Sides, served: Served, name: str) -> None:
    assert_alike(sides, SCORE, served, SCORES[name])


@pytest.mark.parametrize(("served", "name"), asked([*CROSS, COSINE], RANKS))
def test_ranks(sides: Sides, served: Served, name: str) -> None:
    assert_alike(sides, RERANK, served, RANKS[name])


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/score", PAIR), ("/v1/rerank", RANKED), ("/v2/rerank", RANKED)],
)
def test_other_ways(sides: Sides, path: str, body: dict[str, Any]) -> None:
    assert_alike(sides, path, CROSS[0], body)


@pytest.mark.parametrize(
    ("path", "name"),
    [*((SCORE, name) for name in BAD_SCORES), *((RERANK, name) for name in BAD_RANKS)],
)
@pytest.mark.parametrize("served", [CROSS[0], COSINE])
def test_refusals(sides: Sides, served: Served, path: str, name: str) -> None:
    body = (BAD_SCORES if path == SCORE else BAD_RANKS)[name]
    assert_refused(*sides.ask(path, served, body), OTHERWISE.get(name))
