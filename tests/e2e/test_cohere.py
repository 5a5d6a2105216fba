"""cohere's own SDK ranks documents, by the version of its API that each of its clients asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from local_models.make import RERANKER, WEIGHTS
from tests.cluster.conftest import apply, local_model, models_with
from tests.e2e.conftest import Script
from tests.live import BASE, Server, poll

ALIAS = "rerank-v3.5"
QUESTION = "What is the capital of France?"
DOCUMENTS = [
    "A spider has eight legs and eight eyes.",
    "The capital of Italy is Rome.",
    "The capital of France is Paris.",
]


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def ranks(_shared: Any) -> Iterator[Server]:
    """The running service with the cross-encoder, under its own ID and one of Cohere's."""
    live: Server = _shared.get()
    local = local_model(BASE)
    own = {"id": RERANKER, "task": "score", "weights": str(WEIGHTS / RERANKER), "context": 256}
    own |= {name: local[name] for name in ("gpus", "cpus", "dtype", "engine_args", "env")}
    apply(live, models_with(live, [own], aliases={ALIAS: RERANKER}))
    poll(lambda: live.get(f"{live.url}/ready")["ready"], 30, "all are up")
    yield live
    apply(live, live.models)


def test_documents_are_ranked(ranks: Server, sdk_script: Script) -> None:
    fields = {"query": QUESTION, "documents": DOCUMENTS}
    calls = [
        {"model": RERANKER, **fields},
        {"model": ALIAS, **fields, "top_n": 1},
        {"model": BASE, **fields},
        {"model": "no-such-model", **fields},
    ]
    found = sdk_script("cohere", {"calls": calls})
    for all_of_them, best, cannot, unknown in found.values():
        assert all_of_them[0][0] == 2
        scores = [score for _, score in all_of_them]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] > 0.5 > scores[1]
        assert best == all_of_them[:1]
        assert cannot["status"] == 422
        assert "does not answer at" in str(cannot["body"])
        assert unknown["status"] == 404
    assert found["v1"][:2] == found["v2"][:2]
