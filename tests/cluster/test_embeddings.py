"""Embedding models on a real vLLM engine, compared with what Hugging Face's classes compute.

First an engine server by itself, asked over its link. Then the whole service, with one more engine
added to the running ones.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.catalogue.spec import EngineSpec
from serving.observability.logs import Log
from serving.router.answer import AttemptFailed
from serving.wire.messages import CompletionCall, Sampling
from tests.cluster.conftest import apply, local_model, models_with
from tests.cluster.engine_server import EngineLink, EngineServer, engine_link, engine_server
from tests.conftest import Eventually
from tests.embed_shape import CONTEXT, WIDTH, write_embed
from tests.live import ALIAS, BASE, CROW, CROW_TEMPLATE, PIRATE, Server, poll

BERT, EMBED, EMBED_ALIAS = "tiny-bert", "tiny-embed", "embeddings"
EMBEDDINGS, TOKENIZE, DETOKENIZE = "/v1/embeddings", "/tokenize", "/detokenize"
TEXTS = ["Once upon a time", "The capital of France is", "a", "many people of the water " * 20]
TOO_LONG = "the people " * CONTEXT


class HuggingFace:
    """The same checkpoint in the library it is made for."""

    def __init__(self, weights: Path, position: int) -> None:
        import transformers

        self._model = transformers.AutoModel.from_pretrained(weights).float().eval()
        self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(weights)
        self._position = position

    def vector(self, text: str) -> list[float]:
        """The state of the token at the position that the model pools, at length 1."""
        import torch

        ids = torch.tensor([self.tokenizer.encode(text)])
        with torch.no_grad():
            states = self._model(input_ids=ids, attention_mask=torch.ones_like(ids))
        state = states.last_hidden_state[0, self._position]
        vector: list[float] = (state / state.norm()).tolist()
        return vector

    def tokens(self, *texts: str) -> int:
        return sum(len(self.tokenizer.encode(text)) for text in texts)


def assert_same(found: list[float], right: list[float]) -> None:
    """Both of length 1: their product is the cosine."""
    assert len(found) == WIDTH
    assert sum(a * b for a, b in zip(found, right, strict=True)) > 0.9999
    assert found == pytest.approx(right, abs=1e-5)


def entry(name: str, weights: Path) -> dict[str, Any]:
    """The model's entry in a models file."""
    local = local_model(BASE)
    return {
        "id": name,
        "task": "embed",
        "weights": str(weights),
        "context": CONTEXT,
        **{field: local[field] for field in ("gpus", "cpus", "dtype", "engine_args", "env")},
    }


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints by name."""
    folder = tmp_path_factory.mktemp("shapes")
    for name in (BERT, EMBED):
        write_embed(name, folder / name)
    return folder


# An engine server by itself. Its model is an encoder, which keeps no cache, with the first token's
# vector; the service below has a decoder with the last token's.


@pytest.fixture(scope="module")
def bert(shapes: Path) -> HuggingFace:
    return HuggingFace(shapes / BERT, position=0)


@pytest.fixture(scope="module")
def engine(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    spec = EngineSpec.model_validate(entry(BERT, shapes / BERT))
    with engine_server(spec, tmp_path_factory.mktemp("engine")) as server:
        yield server


@pytest.fixture
async def link(engine: EngineServer, log: Log, eventually: Eventually) -> AsyncIterator[EngineLink]:
    async with engine_link(engine, log) as link:
        await eventually(lambda: link.up)
        yield link


@pytest.mark.parametrize("model", [BERT, EMBED_ALIAS])
async def test_one_input(link: EngineLink, bert: HuggingFace, model: str) -> None:
    answer, found = await link.post(EMBEDDINGS, model, input=TEXTS[0])
    assert (found["object"], found["model"]) == ("list", model)
    (item,) = found["data"]
    assert_same(item["embedding"], bert.vector(TEXTS[0]))
    tokens = bert.tokens(TEXTS[0])
    assert found["usage"]["prompt_tokens"] == found["usage"]["total_tokens"] == tokens
    assert answer.end is not None
    assert (answer.end.prompt_tokens, answer.end.completion_tokens) == (tokens, 0)


async def test_several_inputs_come_in_their_order(link: EngineLink, bert: HuggingFace) -> None:
    answer, found = await link.post(EMBEDDINGS, BERT, input=TEXTS)
    assert [item["index"] for item in found["data"]] == [0, 1, 2, 3]
    for item, text in zip(found["data"], TEXTS, strict=True):
        assert_same(item["embedding"], bert.vector(text))
    assert found["usage"]["prompt_tokens"] == bert.tokens(*TEXTS)
    assert answer.end is not None
    assert answer.end.prompt_tokens == bert.tokens(*TEXTS)


async def test_token_ids_are_taken_as_they_are(link: EngineLink, bert: HuggingFace) -> None:
    ids = [bert.tokenizer.encode(text) for text in TEXTS[:2]]
    _, one = await link.post(EMBEDDINGS, BERT, input=ids[0])
    assert_same(one["data"][0]["embedding"], bert.vector(TEXTS[0]))
    assert one["usage"]["prompt_tokens"] == len(ids[0])
    _, both = await link.post(EMBEDDINGS, BERT, input=ids)
    assert_same(both["data"][1]["embedding"], bert.vector(TEXTS[1]))


async def test_base64_is_the_same_vector_in_little_endian_floats(link: EngineLink) -> None:
    _, plain = await link.post(EMBEDDINGS, BERT, input=TEXTS[0], encoding_format="float")
    answer, found = await link.post(EMBEDDINGS, BERT, input=TEXTS[0], encoding_format="base64")
    data = base64.b64decode(found["data"][0]["embedding"])
    assert list(struct.unpack(f"<{WIDTH}f", data)) == pytest.approx(plain["data"][0]["embedding"])
    assert answer.end is not None
    assert answer.end.prompt_tokens == found["usage"]["prompt_tokens"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"input": TOO_LONG}, str(CONTEXT)),
        ({"input": [TEXTS[0], TOO_LONG]}, str(CONTEXT)),
        ({"input": [1] * (CONTEXT + 1)}, str(CONTEXT)),
        ({"input": []}, ""),
        ({}, "input"),
        ({"input": TEXTS[0], "dimensions": 8}, "dimensions"),
    ],
    ids=["text", "one of two", "tokens", "nothing", "no input", "dimensions"],
)
async def test_what_the_caller_does_wrong(
    link: EngineLink, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(AttemptFailed) as caught:
        await link.post(EMBEDDINGS, BERT, **fields)
    error = caught.value.error
    assert 400 <= error.status < 500
    assert words in error.message
    assert not caught.value.retryable
    assert (await link.post(EMBEDDINGS, BERT, input="a"))[1]["data"], "and others are still served"


async def test_there_and_back_through_the_tokenizer(link: EngineLink, bert: HuggingFace) -> None:
    for model in (BERT, EMBED_ALIAS):
        _, found = await link.post(TOKENIZE, model, prompt=TEXTS[1])
        assert found["tokens"] == bert.tokenizer.encode(TEXTS[1])
        assert (found["count"], found["max_model_len"]) == (len(found["tokens"]), CONTEXT)
        _, back = await link.post(DETOKENIZE, model, tokens=found["tokens"])
        assert back["prompt"] == bert.tokenizer.decode(found["tokens"])


async def test_it_makes_no_text(link: EngineLink) -> None:
    call = CompletionCall("req-1", BERT, TEXTS[0], False, Sampling(), BERT)
    with pytest.raises(AttemptFailed, match="/v1/embeddings") as caught:
        await link.call(call)
    assert (caught.value.error.status, caught.value.error.param) == (400, "model")
    for path in ("/v1/completions", "/v1/chat/completions"):
        with pytest.raises(AttemptFailed) as caught:
            await link.post(path, BERT, prompt=TEXTS[0])
        assert caught.value.error.status == 404, "vLLM's app has no such path for this model"


# The whole service, through the routers' own entries for these endpoints.


@pytest.fixture(scope="module")
def more(_shared: Any, shapes: Path) -> Iterator[Server]:
    """The running service with the embedding model and an alias of it."""
    live: Server = _shared.get()
    apply(live, models_with(live, [entry(EMBED, shapes / EMBED)], aliases={EMBED_ALIAS: EMBED}))
    poll(lambda: live.get(f"{live.url}/ready")["ready"], 30, "all are up")
    yield live
    apply(live, live.models)


@pytest.fixture(scope="module")
def llama(shapes: Path) -> HuggingFace:
    return HuggingFace(shapes / EMBED, position=-1)


@pytest.mark.parametrize("model", [EMBED, EMBED_ALIAS])
def test_the_service_has_the_vectors(more: Server, llama: HuggingFace, model: str) -> None:
    found = more.post(EMBEDDINGS, model=model, input=TEXTS).json()
    assert found["model"] == model
    for item, text in zip(found["data"], TEXTS, strict=True):
        assert_same(item["embedding"], llama.vector(text))
    assert found["usage"]["prompt_tokens"] == llama.tokens(*TEXTS)


def test_a_request_for_vectors_is_recorded_with_its_tokens(
    more: Server, llama: HuggingFace
) -> None:
    response = more.post(EMBEDDINGS, model=EMBED_ALIAS, input=TEXTS[:2])
    record = more.record(response.headers["x-request-id"])
    assert (record["outcome"], record["status"]) == ("ok", 200)
    assert (record["prompt_tokens"], record["completion_tokens"]) == (llama.tokens(*TEXTS[:2]), 0)


def test_too_long_an_input_is_the_callers_mistake(more: Server) -> None:
    refused = more.post(EMBEDDINGS, model=EMBED, input=TOO_LONG)
    assert refused.status_code == 400, refused.text
    assert str(CONTEXT) in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "model", "instead"),
    [
        (EMBEDDINGS, BASE, "completions"),
        (EMBEDDINGS, PIRATE, "completions"),
        ("/v4/completions", EMBED, EMBEDDINGS),
        ("/v1/completions", EMBED, EMBEDDINGS),
        ("/v1/chat/completions", EMBED_ALIAS, EMBEDDINGS),
    ],
)
def test_the_wrong_endpoint_names_the_right_one(
    more: Server, path: str, model: str, instead: str
) -> None:
    what: dict[str, Any] = {"input": TEXTS[0]}
    if path.endswith("completions"):
        what = {"prompt": TEXTS[0]}
    if path.endswith("chat/completions"):
        what = {"messages": [{"role": "user", "content": TEXTS[0]}]}
    refused = more.post(path, model=model, **what)
    assert refused.status_code == 422, refused.text
    assert instead in refused.json()["error"]["message"]


@pytest.mark.parametrize("model", [BASE, PIRATE, ALIAS, EMBED, EMBED_ALIAS])
def test_every_id_has_its_tokenizer(more: Server, llama: HuggingFace, model: str) -> None:
    # All these models have one tokenizer.
    right = llama.tokenizer.encode(TEXTS[1])
    found = more.post(TOKENIZE, model=model, prompt=TEXTS[1]).json()
    assert (found["tokens"], found["count"]) == (right, len(right))
    back = more.post(DETOKENIZE, model=model, tokens=right).json()
    assert back["prompt"] == llama.tokenizer.decode(right)


def test_a_chat_is_tokenized_with_the_ids_own_template(more: Server, llama: HuggingFace) -> None:
    messages = [{"role": "user", "content": "and they went"}]
    right = llama.tokenizer.apply_chat_template(
        messages, chat_template=CROW_TEMPLATE, return_dict=False
    )
    assert more.post(TOKENIZE, model=CROW, messages=messages).json()["tokens"] == right
    assert more.post(TOKENIZE, model=BASE, messages=messages).json()["tokens"] != right
