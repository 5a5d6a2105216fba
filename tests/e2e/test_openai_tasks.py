"""The openai package, unmodified, with models that embed and models that hear."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.asking import ASKED, Asking
from tests.cluster.conftest import apply, local_model, models_with
from tests.embed_shape import CONTEXT as EMBED_CONTEXT
from tests.embed_shape import write_embed
from tests.live import BASE, KEY, Server, poll
from tests.whisper_shape import CONTEXT as WHISPER_CONTEXT
from tests.whisper_shape import recording, write_whisper

EMBED, WHISPER = "tiny-embed", "tiny-whisper"
ALIASES = {"text-embedding-3-small": EMBED, "whisper-1": WHISPER}
ASKED_HERE = [asking for asking in ASKED if asking.task in ("embed", "transcribe")]
TEXTS = ["Once upon a time", "The capital of France is"]
HEARD = ("a.wav", recording(1))
NOISE = ("a.wav", b"no sound")


@pytest.fixture(scope="module")
def tasks(_shared: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The running service with both, under their own IDs and those of OpenAI's."""
    live: Server = _shared.get()
    folder = tmp_path_factory.mktemp("shapes")
    write_embed(EMBED, folder / EMBED)
    write_whisper(folder / WHISPER)
    local = local_model(BASE)
    same = {name: local[name] for name in ("gpus", "cpus", "dtype", "engine_args", "env")}
    entries = [
        {"id": name, "task": task, "weights": str(folder / name), "context": context, **same}
        for name, task, context in (
            (EMBED, "embed", EMBED_CONTEXT),
            (WHISPER, "transcribe", WHISPER_CONTEXT),
        )
    ]
    apply(live, models_with(live, entries, aliases=ALIASES))
    poll(lambda: live.get(f"{live.url}/ready")["ready"], 60, "all are up")
    yield live
    apply(live, live.models)


@pytest.fixture
def client(tasks: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=KEY, base_url=f"{tasks.url}/v1", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("asking", ASKED_HERE, ids=lambda at: at.endpoint.path)
def test_the_examples_of_the_description_run(tasks: Server, asking: Asking) -> None:
    target = EMBED if asking.task == "embed" else WHISPER
    for model in (target, *(alias for alias, of in ALIASES.items() if of == target)):
        for body in (*asking.bodies, asking.streamed):
            if body is not None:
                asking.check_running(tasks.client, tasks.url, body, model, target, recording(1))


@pytest.mark.parametrize("model", [EMBED, "text-embedding-3-small"])
def test_vectors(tasks: Server, client: openai.OpenAI, model: str) -> None:
    # It asks for base64 by itself and decodes it.
    found = client.embeddings.create(model=model, input=TEXTS)
    right = tasks.post("/v1/embeddings", model=model, input=TEXTS).json()
    assert found.model == model
    assert [item.index for item in found.data] == [0, 1]
    for item, known in zip(found.data, right["data"], strict=True):
        assert item.embedding == pytest.approx(known["embedding"], abs=1e-6)
    assert found.usage.prompt_tokens == right["usage"]["prompt_tokens"] > 2
    floats = client.embeddings.create(model=model, input=TEXTS[0], encoding_format="float")
    assert floats.data[0].embedding == pytest.approx(found.data[0].embedding, abs=1e-5)
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        client.embeddings.create(model=model, input=TEXTS, dimensions=8)


@pytest.mark.parametrize("model", [WHISPER, "whisper-1"])
def test_recordings(client: openai.OpenAI, model: str) -> None:
    asked: dict[str, Any] = {"model": model, "file": HEARD, "temperature": 0}
    transcription = client.audio.transcriptions.create(language="en", **asked)
    translation = client.audio.translations.create(extra_body={"language": "en"}, **asked)
    assert transcription.text
    assert translation.text
    assert transcription.text != translation.text, "it was asked for something else"
    again = client.audio.transcriptions.create(language="en", response_format="json", **asked)
    assert again.text == transcription.text
    for heard in (client.audio.transcriptions, client.audio.translations):
        with pytest.raises(openai.BadRequestError) as caught:
            heard.create(model=model, file=NOISE)
        assert caught.value.type == "invalid_request_error"
    in_english: dict[str, Any] = {"language": "en", **asked}
    transcribe: Any = client.audio.transcriptions.create
    assert transcribe(**in_english, response_format="text") == transcription.text + "\n"
    verbose = transcribe(**in_english, response_format="verbose_json")
    assert verbose.language == "en"
    assert verbose.duration > 0
    *deltas, done = transcribe(**in_english, stream=True)
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert "".join(event.delta for event in deltas) == transcription.text
    assert (done.type, done.text) == ("transcript.text.done", transcription.text)
    with pytest.raises(openai.UnprocessableEntityError, match="/v1/audio/transcriptions"):
        client.completions.create(model=model, prompt="Once")


def test_azures_client_hears_too(tasks: Server) -> None:
    with openai.AzureOpenAI(
        api_key=KEY, azure_endpoint=tasks.url, api_version="2025-04-01-preview"
    ) as azure:
        asked: dict[str, Any] = {"model": WHISPER, "file": HEARD, "temperature": 0}
        assert azure.audio.transcriptions.create(language="en", **asked).text
        assert len(azure.embeddings.create(model=EMBED, input=TEXTS).data) == 2


def test_a_model_for_text_hears_nothing(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="/v1/completions"):
        client.audio.transcriptions.create(model=BASE, file=HEARD)
    with pytest.raises(openai.UnprocessableEntityError, match="/v1/completions"):
        client.embeddings.create(model=BASE, input=TEXTS)
