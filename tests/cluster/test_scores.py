"""Scores and ranks on real vLLM engines, compared with what Hugging Face's classes compute.

First two engine servers by themselves, asked over their links: a cross-encoder, and an embedding
model, which scores by cosine. Then the whole service, with the cross-encoder added.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from local_models.make import RERANKER, WEIGHTS
from serving.catalogue.spec import EngineSpec
from serving.observability.logs import Log
from serving.router.answer import AttemptFailed
from serving.wire.messages import CompletionCall, Sampling
from tests.asking import ASKED, Asking
from tests.cluster.conftest import apply, local_model, models_with
from tests.cluster.engine_server import EngineLink, EngineServer, engine_link, engine_server
from tests.conftest import Eventually
from tests.embed_shape import write_embed
from tests.live import BASE, PIRATE, Server, poll

ALIAS, EMBED = "rerank-latest", "tiny-embed"
SCORE, RERANK, EMBEDDINGS = "/score", "/rerank", "/v1/embeddings"
SCORING = [asking for asking in ASKED if asking.task == "score"]
CONTEXT = 256
QUESTION = "What is the capital of France?"
TEXTS = [
    "A spider has eight legs and eight eyes.",
    "The capital of France is Paris.",
    "The capital of Italy is Rome.",
    "Once upon a time there was a brave fox named Felix. " * 8,
]
TOO_LONG = "the people " * CONTEXT
# A body with it is prepared by a helper, and says the same.
PADDING = {"user": "x" * 8000, "note": "y" * 8000, "more": "z" * 8000}


class HuggingFace:
    """The same checkpoint in the library it is made for."""

    def __init__(self, weights: Path) -> None:
        import transformers

        kind = transformers.AutoModelForSequenceClassification
        self._model = kind.from_pretrained(weights).float().eval()
        self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(weights)

    def scores(self, query: str, texts: list[str], **how: Any) -> list[float]:
        return [self.score(query, text, **how) for text in texts]

    def score(self, query: str, text: str, **how: Any) -> float:
        import torch

        with torch.no_grad():
            logits = self._model(**self.tokenizer(query, text, return_tensors="pt", **how)).logits
        return float(torch.sigmoid(logits[0, 0]))

    def tokens(self, query: str, texts: list[str]) -> int:
        return sum(len(self.tokenizer(query, text)["input_ids"]) for text in texts)


def entry(name: str, task: str, weights: Path) -> dict[str, Any]:
    """The model's entry in a models file."""
    local = local_model(BASE)
    return {
        "id": name,
        "task": task,
        "weights": str(weights),
        "context": CONTEXT,
        **{field: local[field] for field in ("gpus", "cpus", "dtype", "engine_args", "env")},
    }


@pytest.fixture(scope="module")
def right() -> HuggingFace:
    return HuggingFace(WEIGHTS / RERANKER)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    spec = EngineSpec.model_validate(entry(RERANKER, "score", WEIGHTS / RERANKER))
    with engine_server(spec, tmp_path_factory.mktemp("engine")) as server:
        yield server


@pytest.fixture
async def link(engine: EngineServer, log: Log, eventually: Eventually) -> AsyncIterator[EngineLink]:
    async with engine_link(engine, log) as link:
        await eventually(lambda: link.up)
        yield link


@pytest.mark.parametrize("more", [{}, PADDING], ids=["straight", "prepared"])
@pytest.mark.parametrize("model", [RERANKER, ALIAS])
async def test_scores_are_hugging_faces(
    link: EngineLink, right: HuggingFace, model: str, more: dict[str, Any]
) -> None:
    answer, found = await link.post(SCORE, model, text_1=QUESTION, text_2=TEXTS, **more)
    assert (found["object"], found["model"]) == ("list", model)
    assert [item["index"] for item in found["data"]] == [0, 1, 2, 3]
    scores = [item["score"] for item in found["data"]]
    assert scores == pytest.approx(right.scores(QUESTION, TEXTS), abs=1e-5)
    assert max(scores) == scores[1] > 0.5, "the model knows the answer"
    assert found["usage"]["prompt_tokens"] == right.tokens(QUESTION, TEXTS)
    assert answer.end is not None
    used = answer.end.prompt_tokens, answer.end.completion_tokens
    assert used == (right.tokens(QUESTION, TEXTS), 0)


@pytest.mark.parametrize("more", [{}, PADDING], ids=["straight", "prepared"])
@pytest.mark.parametrize(
    ("ones", "others"),
    [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")],
)
async def test_pairs_of_two_lists(
    link: EngineLink, right: HuggingFace, ones: str, others: str, more: dict[str, Any]
) -> None:
    questions = [QUESTION, "Why is the sky blue?"]
    _, found = await link.post(SCORE, RERANKER, **{ones: questions, others: TEXTS[1:3]}, **more)
    scores = [item["score"] for item in found["data"]]
    pairs = zip(questions, TEXTS[1:3], strict=True)
    assert scores == pytest.approx([right.score(*pair) for pair in pairs], abs=1e-5)


@pytest.mark.parametrize("more", [{}, PADDING], ids=["straight", "prepared"])
async def test_ranks_are_scores_in_order(
    link: EngineLink, right: HuggingFace, more: dict[str, Any]
) -> None:
    scores = right.scores(QUESTION, TEXTS)
    order = sorted(range(len(TEXTS)), key=scores.__getitem__, reverse=True)
    answer, found = await link.post(RERANK, ALIAS, query=QUESTION, documents=TEXTS, **more)
    assert found["model"] == ALIAS
    assert [item["index"] for item in found["results"]][:2] == order[:2] == [1, 2]
    for item in found["results"]:
        assert item["relevance_score"] == pytest.approx(scores[item["index"]], abs=1e-5)
        assert item["document"]["text"] == TEXTS[item["index"]]
    assert found["usage"]["total_tokens"] == right.tokens(QUESTION, TEXTS)
    assert answer.end is not None
    assert answer.end.prompt_tokens == right.tokens(QUESTION, TEXTS)
    for top_n in (1, 3, 4, 99):
        _, some = await link.post(
            RERANK, RERANKER, query=QUESTION, documents=TEXTS, top_n=top_n, **more
        )
        assert [item["index"] for item in some["results"]] == [
            item["index"] for item in found["results"][:top_n]
        ]


@pytest.mark.parametrize("more", [{}, PADDING], ids=["straight", "prepared"])
async def test_long_pairs_are_cut_when_that_is_asked(
    link: EngineLink, right: HuggingFace, more: dict[str, Any]
) -> None:
    fields = {"text_1": QUESTION, "text_2": [TEXTS[3]], "truncate_prompt_tokens": 40}
    _, found = await link.post(SCORE, RERANKER, **fields, **more)
    assert found["usage"]["prompt_tokens"] == 40
    fields = {"text_1": QUESTION, "text_2": [TEXTS[3]], "max_tokens_per_doc": 12}
    _, found = await link.post(SCORE, RERANKER, **fields, **more)
    length = len(right.tokenizer(QUESTION)["input_ids"]) + 1 + 12
    cut = right.score(QUESTION, TEXTS[3], truncation="only_second", max_length=length)
    assert found["data"][0]["score"] == pytest.approx(cut, abs=1e-5)


@pytest.mark.parametrize("more", [{}, PADDING], ids=["straight", "prepared"])
@pytest.mark.parametrize(
    ("path", "fields", "words"),
    [
        (SCORE, {"text_1": QUESTION}, "text_2"),
        (SCORE, {"text_1": QUESTION, "text_2": []}, "At least one"),
        (SCORE, {"text_1": ["a", "b"], "text_2": ["a"]}, "1:1, 1:N or N:N"),
        (SCORE, {"text_1": QUESTION, "text_2": [TEXTS[0], TOO_LONG]}, str(CONTEXT)),
        (SCORE, {"text_1": QUESTION, "text_2": [5]}, "'text_2': must be a text"),
        (SCORE, {"queries": "a" * 8000, "documents": ["a"] * 500}, "'queries': has 8000"),
        (RERANK, {"query": QUESTION, "documents": ["a"] * 513}, "513 texts; at most 512"),
        (RERANK, {"query": QUESTION, "documents": TEXTS, "top_n": -1}, "top_n"),
        (RERANK, {"query": QUESTION, "documents": TEXTS, "top_n": "many"}, "top_n"),
        (RERANK, {"query": QUESTION, "documents": TEXTS, "top_n": 2**70}, "64 bit"),
        (RERANK, {"query": QUESTION, "documents": TEXTS, "truncate_prompt_tokens": -2}, "trunc"),
        (RERANK, {"query": QUESTION, "documents": TEXTS, "truncate_prompt_tokens": 999}, "trunc"),
        (RERANK, {"query": QUESTION, "documents": TEXTS, "max_tokens_per_doc": 999}, "max_tokens"),
        (RERANK, {"query": ["a"], "documents": TEXTS}, "query"),
        (
            RERANK,
            {
                "query": QUESTION,
                "documents": [
                    {"content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/"}}]}
                ],
            },
            "'documents': must be a text",
        ),
    ],
)
async def test_what_the_caller_does_wrong(
    link: EngineLink, path: str, fields: dict[str, Any], words: str, more: dict[str, Any]
) -> None:
    with pytest.raises(AttemptFailed) as caught:
        await link.post(path, RERANKER, **fields, **more)
    error = caught.value.error
    assert 400 <= error.status < 500, error.message
    assert words in error.message
    assert not caught.value.retryable


async def test_many_pairs_of_a_long_query_have_a_limit_of_tokens(link: EngineLink) -> None:
    """A body of 3 KiB that asks for 131,072 tokens runs; as many as the limit allows."""
    answer, found = await link.post(
        RERANK, RERANKER, query="the " * 200, documents=["a"] * 512, padding="max_length"
    )
    assert found["usage"]["total_tokens"] == 512 * CONTEXT
    assert answer.end is not None
    assert answer.end.prompt_tokens == 512 * CONTEXT


async def test_it_makes_no_text_and_no_vectors(link: EngineLink) -> None:
    call = CompletionCall("req-1", RERANKER, TEXTS[0], False, Sampling(), RERANKER)
    with pytest.raises(AttemptFailed, match="/score or /rerank") as caught:
        await link.call(call)
    assert (caught.value.error.status, caught.value.error.param) == (400, "model")
    for path in (EMBEDDINGS, "/v1/completions"):
        with pytest.raises(AttemptFailed) as caught:
            await link.post(path, RERANKER, prompt=TEXTS[0], input=TEXTS[0])
        assert caught.value.error.status == 404, "vLLM's app has no such path for this model"


# An embedding model.


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    folder = tmp_path_factory.mktemp("embed")
    write_embed(EMBED, folder)
    spec = EngineSpec.model_validate(entry(EMBED, "embed", folder))
    with engine_server(spec, tmp_path_factory.mktemp("engine")) as server:
        yield server


@pytest.mark.parametrize("more", [{}, PADDING], ids=["straight", "prepared"])
async def test_an_embedding_model_scores_by_cosine(
    embedder: EngineServer, log: Log, eventually: Eventually, more: dict[str, Any]
) -> None:
    async with engine_link(embedder, log) as link:
        await eventually(lambda: link.up)
        both = [QUESTION, *TEXTS]
        _, made = await link.post(EMBEDDINGS, EMBED, input=both, **more)
        query, *vectors = [item["embedding"] for item in made["data"]]
        cosines = [math.fsum(a * b for a, b in zip(query, v, strict=True)) for v in vectors]
        answer, found = await link.post(SCORE, EMBED, text_1=QUESTION, text_2=TEXTS, **more)
        scores = [item["score"] for item in found["data"]]
        assert scores == pytest.approx(cosines, abs=1e-5)
        # Each text is read once, and so is it counted.
        assert found["usage"]["prompt_tokens"] == made["usage"]["prompt_tokens"]
        assert answer.end is not None
        assert answer.end.prompt_tokens == made["usage"]["prompt_tokens"]
        _, ranks = await link.post(RERANK, EMBED, query=QUESTION, documents=TEXTS, **more)
        for item in ranks["results"]:
            assert item["relevance_score"] == pytest.approx(cosines[item["index"]], abs=1e-5)
        for fields in (
            {"query": QUESTION, "documents": TEXTS, "max_tokens_per_doc": 3},
            {"query": QUESTION, "documents": TEXTS, "max_tokens_per_query": 2},
        ):
            answer, _ = await link.post(RERANK, EMBED, **fields, **more)
            assert answer.end is not None
            assert answer.end.prompt_tokens < made["usage"]["prompt_tokens"]


# The whole service, through the routers' own entries for these endpoints.


@pytest.fixture(scope="module")
def more(_shared: Any) -> Iterator[Server]:
    """The running service with the cross-encoder and an alias of it."""
    live: Server = _shared.get()
    models = [entry(RERANKER, "score", WEIGHTS / RERANKER)]
    apply(live, models_with(live, models, aliases={ALIAS: RERANKER}))
    poll(lambda: live.get(f"{live.url}/ready")["ready"], 30, "all are up")
    yield live
    apply(live, live.models)


@pytest.mark.parametrize("model", [RERANKER, ALIAS])
@pytest.mark.parametrize("path", ["/v1/score", "/score", "/v1/rerank", "/rerank", "/v2/rerank"])
def test_every_path_answers(more: Server, right: HuggingFace, path: str, model: str) -> None:
    fields: dict[str, Any] = {"queries": QUESTION, "documents": TEXTS}
    if path.endswith("rerank"):
        fields = {"query": QUESTION, "documents": TEXTS, "top_n": 1}
    response = more.post(path, model=model, **fields)
    assert response.status_code == 200, response.text
    found = response.json()
    assert found["model"] == model
    best = found["results"][0]["relevance_score"] if "results" in found else None
    score = found["data"][1]["score"] if "data" in found else best
    assert score == pytest.approx(right.score(QUESTION, TEXTS[1]), abs=1e-5)
    assert response.headers.get("x-served-model") == (RERANKER if model == ALIAS else None)
    record = more.record(response.headers["x-request-id"])
    assert (record["outcome"], record["endpoint"]) == ("ok", path)
    assert record["prompt_tokens"] == right.tokens(QUESTION, TEXTS)
    assert record["completion_tokens"] == 0


@pytest.mark.parametrize("asking", SCORING, ids=lambda at: at.endpoint.path)
def test_the_examples_of_the_description_run(more: Server, asking: Asking) -> None:
    for model in (RERANKER, ALIAS):
        for body in asking.bodies:
            asking.check_running(more.client, more.url, body, model, RERANKER)


@pytest.mark.parametrize(
    ("path", "model", "instead"),
    [
        ("/v1/score", BASE, "/v1/completions"),
        ("/v2/rerank", PIRATE, "/v1/completions"),
        ("/v1/embeddings", RERANKER, "/score, /rerank"),
        ("/v1/chat/completions", ALIAS, "/score, /rerank"),
    ],
)
def test_the_wrong_endpoint_names_the_right_one(
    more: Server, path: str, model: str, instead: str
) -> None:
    refused = more.post(path, model=model, query="a", documents=["a"], input="a")
    assert refused.status_code == 422, refused.text
    message = refused.json()["error"]["message"]
    assert instead in message
    assert f"does not answer at {path};" in message


def test_what_a_body_does_wrong_is_told_in_openais_envelope(more: Server) -> None:
    refused = more.post("/v1/rerank", model=ALIAS, query="a", documents=["a"], top_n=-1)
    error = refused.json()["error"]
    assert (refused.status_code, error["type"]) == (400, "invalid_request_error")
    assert error["request_id"] == refused.headers["x-request-id"]
    raw = b'{"model": "%s", "query": "\xed\xa0\x80", "documents": ["a"]}' % ALIAS.encode()
    refused = more.client.post(f"{more.url}/v1/rerank", content=raw)
    assert (refused.status_code, "UTF-8" in refused.text) == (400, True), refused.text
